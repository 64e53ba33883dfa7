"""Rows with gaps: which have the same, and what is to be expected of what they lack."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from daskmix.arrays import Array, namespace, to_host
from daskmix.kernels import LOG_2PI, Observed, Order

WORD = 8  # bytes that are compared at once


def same_gaps(x: Array) -> tuple[Array, Array, Array]:
    """Rows in an order in which those with the same gaps are neighbours: (n,); where each kind begins, and the last
    one ends; and which features each has: (kinds, d). On the host.
    """
    there = to_host(~namespace(x).isnan(x))
    packed = np.packbits(there, axis=1)
    words = np.pad(packed, ((0, 0), (0, -packed.shape[1] % WORD)))
    kind = np.dtype(np.uint64) if words.shape[1] == WORD else np.dtype((np.void, words.shape[1]))
    _, first, number, count = np.unique(
        np.ascontiguousarray(words).view(kind)[:, 0], return_index=True, return_inverse=True, return_counts=True
    )
    return np.argsort(number, kind="stable"), np.append(0, np.cumsum(count)), there[first]


@dataclass(frozen=True)
class Pattern:
    """What densities say of rows that have some features."""

    densities: Observed
    seen: Array  # (o,) which

    @cached_property
    def _covariances(self) -> Array:
        return self.densities.covariances[:, self.seen][:, :, self.seen]

    @cached_property
    def factors(self) -> Array:
        """F, F F' the precision of what is there: (k, o, o)."""
        return np.linalg.inv(np.linalg.cholesky(self._covariances)).transpose(0, 2, 1)

    @cached_property
    def constants(self) -> Array:
        """log p(mean_k, k) of what is there: (k,)."""
        model, seen = self.densities, self.seen
        log_det = np.log(np.diagonal(self.factors, axis1=1, axis2=2)).sum(axis=1)
        smoothed = 0.5 * np.einsum("kde,d->k", self.factors**2, model.floor[seen])
        per_feature = model.log_scale[seen] - 0.5 * LOG_2PI
        return model.log_weights + log_det - smoothed + per_feature.sum()

    @cached_property
    def carry(self) -> Array:
        """What a row is expected to be away from the mean, all of it, given what is there: (k, d, o)."""
        carry = self.densities.covariances[:, :, self.seen] @ self.factors @ self.factors.transpose(0, 2, 1)
        carry[:, self.seen] = np.eye(len(self.seen))
        return carry

    def completed(self, mass: Array, first: Array, second: Array) -> tuple[Array, Array]:
        """First (k, d) and second moments (k, d, d) of the rows completed, from those of what is there.

        Rows are smoothed as the covariances are, and estimating adds that again (see `Observed.floor`).
        """
        model, carry = self.densities, self.carry
        transposed = carry.transpose(0, 2, 1)
        left = model.covariances - carry @ self._covariances @ transposed - np.diag(model.floor)
        smoothed = second + mass[:, None, None] * np.diag(model.floor[self.seen])
        whole = carry @ smoothed @ transposed + mass[:, None, None] * left
        return np.einsum("kdo,ko->kd", carry, first), whole


def patterns(y: Array, densities: Observed) -> Iterator[tuple[Array, Pattern]]:
    """The positions of rows with the same gaps, and what densities say of them."""
    order, edges, there = same_gaps(y)
    for begin, end, has in zip(edges, edges[1:], there, strict=False):
        yield order[begin:end], Pattern(densities, np.flatnonzero(has))


def ordered(second: Array, order: Order) -> Array:
    """As much of second moments (k, d, d) as the order keeps."""
    if order is Order.trace:
        return np.trace(second, axis1=1, axis2=2)
    if order is Order.diagonal:
        return np.diagonal(second, axis1=1, axis2=2).copy()
    return second.sum(axis=0) if order is Order.pooled else second
