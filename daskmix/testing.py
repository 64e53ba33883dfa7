"""The laws that a new reduction, structure or kernel must pass.

Each raises AssertionError where the law does not hold. Nothing here is needed to fit a model.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from daskmix.block import Array, Block, table
from daskmix.kernels import Densities, Frame, Kernels
from daskmix.reduction import Reduction
from daskmix.structures import Structure


def block_of(x: Array, w: Array | None = None, start: int = 0) -> Block:
    """Rows as a block of a table."""
    return Block(x, w, table(start, len(x), start + len(x)), gaps=bool(np.isnan(x).any()))


def cut(block: Block, at: int) -> tuple[Block, Block]:
    """The rows before and from `at`."""
    x, w, first = block.x, block.w, block.first
    head, tail = (None, None) if w is None else (w[:at], w[at:])
    return replace(block, x=x[:at], w=head), replace(block, x=x[at:], w=tail, first=first + at, missing=0)


def assert_same_answer(a: Any, b: Any, rtol: float = 1e-9, atol: float = 1e-9) -> None:
    """Two answers agree, field by field."""
    if is_dataclass(a):
        for field in fields(a):
            assert_same_answer(getattr(a, field.name), getattr(b, field.name), rtol, atol)
    elif isinstance(a, tuple):
        for x, y in zip(a, b, strict=True):
            assert_same_answer(x, y, rtol, atol)
    elif a is not None and not isinstance(a, str):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def check_reduction(question: Reduction[Any], block: Block, at: int, ops: Kernels, rtol: float = 1e-9) -> None:
    """Rows may be cut anywhere, merging is associative to rounding, and no rows change nothing."""
    head, tail = cut(block, at)
    whole = question.map(block, ops)
    a, b = question.map(head, ops), question.map(tail, ops)
    scale = max(1.0, float(np.abs(block.x).max(initial=0.0)) ** 2 * len(block.x))
    assert_same_answer(question.merge(a, b), whole, rtol, rtol * scale)
    assert_same_answer(question.merge(question.zero(), a), a, 0.0, 0.0)
    assert_same_answer(question.merge(a, question.zero()), a, 0.0, 0.0)
    c = question.map(cut(tail, len(tail.x) // 2)[1], ops)
    left = question.merge(question.merge(a, b), c)
    assert_same_answer(left, question.merge(a, question.merge(b, c)), rtol, rtol * scale)
    assert question.row_bytes(ops) > 0


def check_weights_are_repeats(question: Reduction[Any], x: Array, times: Array, ops: Kernels) -> None:
    """A whole weight counts as that many equal rows."""
    weighted = question.map(block_of(x, times.astype(np.float64)), ops)
    repeated = question.map(block_of(np.repeat(x, times, axis=0)), ops)
    assert_same_answer(weighted, repeated, 1e-9, 1e-9 * max(1.0, float(np.abs(x).max()) ** 2 * times.sum()))


def check_kernels(ops: Kernels, reference: Kernels, x: Array, w: Array | None, frame: Frame, centres: Array) -> None:
    """Assignment agrees with the definition of right."""
    rtol = 1e-4 if x.dtype == np.float32 else 1e-9
    (found,), (right,) = (kernels.assign(x, w, frame, [centres], [3]) for kernels in (ops, reference))
    size = float(np.abs(frame.enter(x.astype(np.float64))).max(initial=1.0) + np.abs(centres).max())
    for name in ("mass", "first", "cost"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(right, name), rtol=rtol, atol=rtol * size**2 * max(1, len(x))
        )
    np.testing.assert_allclose(np.sort(found.far_distance), np.sort(right.far_distance), rtol=rtol, atol=rtol * size**2)


def check_densities(ops: Kernels, reference: Kernels, x: Array, w: Array | None, frame: Frame, d: Densities) -> None:
    """The E-step agrees with the definition of right."""
    rtol = 1e-3 if "float32" in d.name else 1e-8
    (found,), (right,) = (kernels.explain(x, w, frame, d) for kernels in (ops, reference))
    size = float(np.abs(frame.enter(x.astype(np.float64))).max(initial=1.0))
    for a, b in zip(found, right, strict=True):
        if a is None or b is None:
            assert a is b
            continue
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1, len(x)) * (1 + size**2))


def check_structure(structure: Structure, mass: Array, scatter: Array, d: int, likelihood: Any) -> None:
    """No nearby covariance of the same structure explains the moments better.

    `likelihood(covariance values)` is the expected log-likelihood; it is probed at the covariances of the structure
    that lie nearest to random ones around the estimate.
    """
    best = structure.estimate(mass, scatter, np.zeros(d))
    top, rng = likelihood(best.values), np.random.default_rng(0)
    at = best.coordinates()
    for size in (1e-3, 1e-2, 0.1):
        for _ in range(20):
            moved = best.at((at + size * rng.standard_normal(at.shape)).ravel(), d)
            assert likelihood(structure.nearest(moved, mass, d, best).values) <= top + 1e-9 * abs(top)
