"""Replicates of a fit, each on rows with weights or values of its own: the bootstrap, in shared passes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import factorial
from typing import Any, TypeVar

import numpy as np

from daskmix.algorithms.base import Algorithm
from daskmix.arrays import alongside, namespace
from daskmix.block import Array, Block
from daskmix.derived import Draws
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
class OfReplicate(Reduction[A]):
    """A question about the rows of a replicate, which are made of those that are read, block by block."""

    question: Reduction[A]

    @abstractmethod
    def made(self, block: Block) -> Block:
        """The rows of the replicate that stand in for these."""

    @abstractmethod
    def made_bytes(self) -> int:
        """Working memory to make one."""

    def zero(self) -> A:
        return self.question.zero()

    def map(self, block: Block, ops: Kernels) -> A:
        return self.question.map(self.made(block), ops)

    def merge(self, a: A, b: A) -> A:
        return self.question.merge(a, b)

    def row_bytes(self, ops: Kernels) -> int:
        return self.question.row_bytes(ops) + self.made_bytes()


@dataclass(frozen=True)
class Resampled(OfReplicate[A]):
    """Of which each row counts as often as it was drawn (Hanley & MacGibbon 2006)."""

    seed: int

    def made(self, block: Block) -> Block:
        return replace(block, w=block.weights() * times_drawn(self.seed, block.index))

    def made_bytes(self) -> int:
        return 8 * len(CUMULATIVE)


@dataclass(frozen=True)
class Redrawn(OfReplicate[A]):
    """Of which each row is drawn from a mixture (in the units of the rows), with the weight and the gaps that it has.

    Nothing is kept: a row is the same in every pass, for it is drawn from the seed and its index.
    """

    draws: Draws

    def made(self, block: Block) -> Block:
        # Drawn on the host, whose normal quantiles NumPy and CuPy share no name for.
        index, xp = block.index_of(np.arange(len(block.x))), namespace(block.x)
        x = alongside(self.draws.rows(index).astype(block.x.dtype), block.x)
        return replace(block, x=xp.where(xp.isnan(block.x), block.x, x) if block.gaps else x)

    def made_bytes(self) -> int:
        return 8 * (3 * self.draws.model.shape[1] + 4)


@dataclass(frozen=True)
class Resampling(Algorithm[Any, Any]):
    """An algorithm on the rows of one replicate."""

    algorithm: Algorithm[Any, Any]
    of_replicate: Callable[[Reduction[Any]], Reduction[Any]]  # what is asked of all rows, asked of the replicate's

    def start(self, model: Any = None) -> Any:
        return self.algorithm.start(model)

    def ask(self, state: Any) -> Reduction[Any]:
        return self.of_replicate(self.algorithm.ask(state))

    def tell(self, state: Any, answer: Any) -> Any:
        return self.algorithm.tell(state, answer)
