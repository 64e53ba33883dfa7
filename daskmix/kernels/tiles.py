"""Loops that all compiled kernels are made of.

Rows of a tile lie along the last axis, so that every loop over rows is a vector operation.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from daskmix.block import Array
from daskmix.kernels.jit import jit
from daskmix.kernels.registers import LANES, SIDE, transpose_square

NO_WEIGHTS = np.empty(0)


@jit
def transpose(flat, at, out):
    """Rows of m numbers, at flat[at:], as columns: out (m, n)."""
    m, n = out.shape
    flat_out = out.reshape(n * m)
    whole, squares = n // SIDE * SIDE, m // SIDE * SIDE
    for i in range(0, whole, SIDE):
        for j in range(0, squares, SIDE):
            transpose_square(flat, at + i * m + j, m, flat_out, j * n + i, n)
        for j in range(squares, m):
            for row in range(i, i + SIDE):
                flat_out[j * n + row] = flat[at + row * m + j]
    for i in range(whole, n):
        for j in range(m):
            flat_out[j * n + i] = flat[at + i * m + j]


@jit
def add(sums, more):
    """sums += more, without an array in between."""
    for j in range(sums.shape[0]):
        for f in range(sums.shape[1]):
            sums[j, f] += more[j, f]


@jit
def repeated(a):
    """The same numbers LANES times: loops over a row alone are too short where features are few."""
    out = np.empty(LANES * len(a), a.dtype)
    for i in range(0, len(out), len(a)):
        out[i : i + len(a)] = a
    return out


@jit
def enter(flat, begin, count, shifts, scales, y):
    """`count` numbers of rows, at flat[begin:], in the frame; shifts and scales of several rows."""
    for i in range(0, count, len(shifts)):
        m = min(len(shifts), count - i)
        rows, out = flat[begin + i : begin + i + m], y[i : i + m]
        for j in range(m):
            out[j] = (rows[j] - shifts[j]) * scales[j]


def frozen(a: Array, dtype: Any = None) -> Array:
    """A contiguous read-only view: one type for the compiler, whatever the caller's flags."""
    view = np.ascontiguousarray(a, dtype=dtype)[...]
    view.flags.writeable = False
    return view


def weights_of(w: Array | None) -> Array:
    return frozen(NO_WEIGHTS if w is None else w, np.float64)


def edges_of(sizes: Sequence[int]) -> Array:
    """Where each part of these sizes begins, and the last one ends."""
    return frozen([0, *accumulate(sizes)], np.int64)
