"""A question that takes no work, and rows of which there are none or few: what is left is what an engine costs."""

from dataclasses import dataclass

import numpy as np

from daskmix.block import Block, table
from daskmix.kernels import Kernels
from daskmix.reduction import Reduction
from daskmix.rows import LARGE, Part, Rows


@dataclass(frozen=True)
class Nothing(Reduction[np.ndarray]):
    """Asks nothing, and is answered with so many bytes."""

    answer: int

    def zero(self) -> np.ndarray:
        return np.zeros(self.answer // 8)

    def map(self, block: Block, ops: Kernels) -> np.ndarray:
        return self.zero()


def _few() -> tuple[list[np.ndarray], None]:
    return [np.zeros((10, 1), np.float32)], None


def few_rows(parts: int) -> Rows:
    """Ten rows in each part, all of which are worth keeping."""
    made = tuple(Part(i, table(10 * i, 10, 10 * parts), 1, _few, nbytes=40) for i in range(parts))
    return Rows(made, 1, np.dtype(np.float32), 10 * parts, in_memory=False, keep=True)


def _empty() -> tuple[list[np.ndarray], None]:
    return [np.empty((0, 1), np.float32)], None


def empty_rows(bundles: int) -> Rows:
    """No rows, in parts that each fill a bundle."""
    parts = tuple(Part(i, table(0, 0, 0), 1, _empty, nbytes=LARGE) for i in range(bundles))
    return Rows(parts, 1, np.dtype(np.float32), 0, in_memory=False)
