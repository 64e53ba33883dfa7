"""Which kernels suit an array, and rows that are moved to a GPU, a tile at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from daskmix.block import Array, Block
from daskmix.errors import InputError
from daskmix.kernels import Kernels, reference
from daskmix.reduction import Reduction

if TYPE_CHECKING:
    from daskmix.passes import Engine, Tally
    from daskmix.rows import Rows

A = TypeVar("A")


def suited(ops: Kernels, x: Array) -> Kernels:
    """Compiled kernels are for NumPy; rows that live elsewhere take the reference, which runs where they are."""
    return ops if isinstance(x, np.ndarray) else reference


@cache
def gpu() -> Any:
    """CuPy, where it finds a GPU.

    Raises
    ------
    InputError
        Where it does not. It is asked by the task that computes: a cluster's workers may have what the client lacks.
    """
    try:
        import cupy
    except ImportError as error:
        raise InputError(
            f'device="cuda" needs CuPy, which cannot be imported here ({error}); install the one for your CUDA, e.g. '
            "pip install cupy-cuda12x, or leave device out"
        ) from error
    if not cupy.cuda.is_available():
        raise InputError(
            'device="cuda", but CuPy finds no GPU here; check the driver with nvidia-smi, or leave device out'
        )
    return cupy


@dataclass(frozen=True)
class OnGpu(Reduction[A]):
    """The same question, answered on the GPU."""

    question: Reduction[A]

    def zero(self) -> A:
        return self.question.zero()

    def map(self, block: Block, ops: Kernels) -> A:
        there = block.moved(gpu())
        return self.question.map(there, suited(ops, there.x))

    def merge(self, a: A, b: A) -> A:
        return self.question.merge(a, b)

    def row_bytes(self, ops: Kernels) -> int:
        return self.question.row_bytes(reference)


@dataclass(frozen=True)
class GpuEngine:
    """An engine whose tasks move each tile of rows to their GPU; reading, cleaning and merging stay what they were."""

    reader: Engine

    def run(self, reduction: Reduction[A], rows: Rows) -> tuple[A, Tally]:
        return self.reader.run(OnGpu(reduction), rows)

    def close(self) -> None:
        self.reader.close()
