"""What one pass learns about each component: mass, first and second moments, and what to do with them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from daskmix.block import Array
from daskmix.covariance import beside
from daskmix.kernels import Order
from daskmix.reduction import Sums

TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Moments(Sums):
    """What one pass learns about each of k components in d features, about an origin."""

    mass: Array  # (k,), or (k + 1,) with that of the noise
    first: Array  # (k, d)
    second: Array  # (k,), (k, d), (k, d, d) or (d, d)
    score: float  # sum of w * log p(x)
    certainty: float  # sum of w * log of the largest responsibility
    origin: Origin  # of each component's moments
    # Of Student's t, whose rows count for the moments as much as they are in the component; else 0.
    heft: Array | float = 0.0  # (k,) what these are of
    tail: Array | float = 0.0  # (k,) what is expected of log minus number of times that a row counts

    @property
    def pull(self) -> Array:
        """What the first and second moments are of: (k,)."""
        return self.heft if np.ndim(self.heft) else self.own

    @property
    def own(self) -> Array:
        """The mass of the components alone: (k,)."""
        return self.mass[: len(self.first)]

    def united(self, i: int, j: int, order: Order) -> Moments:
        """With the rows of component j in component i."""

        def joined(values: Array) -> Array:
            values = values.copy()
            values[i] += values[j]
            return np.delete(values, j, axis=0)

        second = self.second if order is Order.pooled else joined(self.second)
        return replace(self, mass=joined(self.mass), first=joined(self.first), second=second)

    def halved(self, j: int, away: Array, order: Order) -> Moments:
        """With half of component j's rows as a last component, the means of the halves so far to either side (d,)."""
        k, mass, first = len(self.first), self.mass[j : j + 1] / 2, self.first[j : j + 1] / 2
        moved = mass * away[None]
        second = self.second
        if order is not Order.pooled:
            # Of a row r and its mirror image the outer products about the mean are equal.
            half, change = second[j : j + 1] / 2, _symmetric(first, away[None], order)
            second = np.concatenate([second[:j], half + change, second[j + 1 :], half - change])
        return replace(
            self,
            mass=np.concatenate([self.mass[:j], mass, self.mass[j + 1 : k], mass, self.mass[k:]]),
            first=np.concatenate([self.first[:j], first + moved, self.first[j + 1 :], first - moved]),
            second=second,
        )

    def means(self) -> Array:
        """Of each component's rows: (k, d)."""
        offset = self._offset()
        return self.origin.about(offset) + offset

    def scatter(self, order: Order) -> Array:
        """Second moments about these means."""
        return self.second - of_each(self.pull, outer(self._offset(), order), order)

    def _offset(self) -> Array:
        return self.first / np.maximum(self.pull, TINY)[:, None]

    def times(self, factor: float) -> Moments:
        """Of so many times the rows."""
        return replace(self, **{name: factor * getattr(self, name) for name in EACH})


EACH = ("mass", "first", "second", "heft", "tail")  # of moments, what grows with the rows


@dataclass(frozen=True)
class Origin:
    """What moments are taken about: the frame's origin, or the means that a pass started from."""

    means: Array | None = None  # (k, d)

    def about(self, like: Array) -> Array:
        return np.zeros_like(like) if self.means is None else self.means

    def __add__(self, other: Origin) -> Origin:
        return self  # the same question has the same origin


def blended(share: float, before: Moments, batch: Moments) -> Moments:
    """Per unit of mass: the moments of what came before, and for this share those of a batch (same origin)."""
    mass, first, second, heft, tail = (
        (1 - share) * getattr(before, name) / before.mass.sum() + share * getattr(batch, name) / batch.mass.sum()
        for name in EACH
    )
    return Moments(mass, first, second, np.nan, np.nan, batch.origin, heft, tail)


def corrected(order: Order, rows: Moments, here: Moments, there: Moments) -> Moments:
    """What all rows would say of one model, per unit of mass: as they do of another, and as a sample sees the change.

    `rows` and `there` are the answers of all rows and of the sample about the same model, `here` is the sample's about
    the one in question: a control variate, exact where both are the same model.
    """
    total, size = rows.mass.sum(), there.mass.sum()
    here = about(order, here, rows.origin)
    mass, first, second, heft, tail = (
        getattr(rows, name) / total + (getattr(here, name) - getattr(there, name)) / size for name in EACH
    )
    return Moments(mass, first, second, np.nan, np.nan, rows.origin, heft, tail)


def about(order: Order, moments: Moments, origin: Origin) -> Moments:
    """The same moments about another origin."""
    shift = moments.origin.about(moments.first) - origin.about(moments.first)
    moved = moments.pull[:, None] * shift
    second = moments.second + _symmetric(moments.first + 0.5 * moved, shift, order)
    return replace(moments, first=moments.first + moved, second=second, origin=origin)


def _symmetric(a: Array, b: Array, order: Order) -> Array:
    """a b' + b a', as much of it as the order keeps, for each component or, pooled, of all."""
    if order is Order.trace:
        return 2 * (a * b).sum(axis=1)
    if order is Order.diagonal:
        return 2 * a * b
    product = a[:, :, None] * b[:, None, :]
    both = product + product.transpose(0, 2, 1)
    return both.sum(axis=0) if order is Order.pooled else both


def shrunk(means: Array, mass: Array, towards: Array, rows: float) -> tuple[Array, Array]:
    """Means (k, d) of this mass and so many rows at a point, and what the way there weighs in the scatter: (k,)."""
    counts = rows + mass
    return (rows * towards + mass[:, None] * means) / counts[:, None], rows * mass / counts


def of_each(share: Array, values: Array, order: Order) -> Array:
    """This share of each component's values, or, pooled, the sum of these."""
    if order is Order.pooled:
        return np.einsum("k,kde->de", share, values)
    return beside(share, values) * values


def in_units(values: Array, scale: Array) -> Array:
    """Variances () or (d,), or a covariance (d, d), of x * scale; one variance for all features has one scale."""
    return values * (scale[0] ** 2, scale**2, np.outer(scale, scale))[values.ndim]


def on_diagonal(variances: Array, order: Order) -> Array:
    """Second moments of each feature alone, (k, d), as the order has them, of components or, pooled, of all."""
    if order is Order.trace:
        return variances.sum(axis=1)
    if order is Order.diagonal:
        return variances
    return np.diag(variances.sum(axis=0)) if order is Order.pooled else variances[:, :, None] * np.eye(len(variances.T))


def outer(offset: Array, order: Order) -> Array:
    """offset offset', as much of it as the order keeps, for each component."""
    if order is Order.trace:
        return (offset**2).sum(axis=1)
    if order is Order.diagonal:
        return offset**2
    return offset[:, :, None] * offset[:, None, :]
