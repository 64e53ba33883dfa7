"""Replicates of a fit, each on rows with weights of its own: the bootstrap, in shared passes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import factorial
from typing import Any, TypeVar

import numpy as np

from daskmix.algorithms.base import Algorithm
from daskmix.arrays import alongside
from daskmix.block import Array, Block
from daskmix.kernels import Kernels
from daskmix.reduction import Reduction
from daskmix.sampling import uniform

A = TypeVar("A")

# Of a Poisson variable of mean 1; what lies beyond is less than a draw can tell.
CUMULATIVE = np.cumsum([np.exp(-1.0) / factorial(times) for times in range(19)])


def times_drawn(seed: int, index: Array) -> Array:
    """How often a replicate has each row: Poisson with mean 1, from the seed and the row's index alone, (n,)."""
    return (uniform(seed, index)[:, None] > alongside(CUMULATIVE, index)).sum(axis=1)


@dataclass(frozen=True)
class Resampled(Reduction[A]):
    """A question about rows of which each counts as often as it was drawn (Hanley & MacGibbon 2006)."""

    question: Reduction[A]
    seed: int

    def zero(self) -> A:
        return self.question.zero()

    def map(self, block: Block, ops: Kernels) -> A:
        weights = block.weights() * times_drawn(self.seed, block.index)
        return self.question.map(replace(block, w=weights), ops)

    def merge(self, a: A, b: A) -> A:
        return self.question.merge(a, b)

    def row_bytes(self, ops: Kernels) -> int:
        return self.question.row_bytes(ops) + 8 * len(CUMULATIVE)


@dataclass(frozen=True)
class Resampling(Algorithm[Any, Any]):
    """An algorithm on the rows of one replicate."""

    algorithm: Algorithm[Any, Any]
    seed: int

    def start(self, model: Any = None) -> Any:
        return self.algorithm.start(model)

    def ask(self, state: Any) -> Reduction[Any]:
        return Resampled(self.algorithm.ask(state), self.seed)

    def tell(self, state: Any, answer: Any) -> Any:
        return self.algorithm.tell(state, answer)
