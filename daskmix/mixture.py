"""Gaussian mixtures, and the pass that teaches them: E-step and M-step on one page."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daskmix.arrays import namespace, to_host
from daskmix.block import Array, Block
from daskmix.covariance import LOG_2PI, Covariance, Structure
from daskmix.errors import CollapsedComponentWarning
from daskmix.kernels import Densities, Features, Frame, Kernels, Order, joined
from daskmix.kernels.reference import enter, moments
from daskmix.reduction import Linear, Reduction, Sums

TINY = float(np.finfo(np.float64).tiny)
PRODUCT_FLOAT32_ERROR = 1e-3
PRODUCT_FLOAT64_ERROR = 1e-8
HYSTERESIS = 4.0


@dataclass(frozen=True)
class Mixture:
    """k Gaussian components, in the coordinates of a frame."""

    weights: Array  # (k,)
    means: Array  # (k, d)
    covariance: Covariance
    structure: Structure

    @property
    def shape(self) -> tuple[int, int]:
        k, d = self.means.shape
        return k, d

    def n_parameters(self) -> int:
        k, d = self.shape
        return k - 1 + k * d + self.structure.n_parameters(k, d)

    def densities(self, path: str, floor: Array, log_scale: float) -> Densities:
        """What the kernels need for log p(x, k), on data smoothed by `floor` and measured in units of the frame."""
        k, d = self.shape
        constants = (
            np.log(np.maximum(self.weights, TINY))
            + self.covariance.log_det_factors(d)
            - 0.5 * d * LOG_2PI
            - self.covariance.smoothed(floor, k, d)
            + log_scale
        )
        if path == "centred":
            return self.covariance.centred(self.means, constants)
        return self.covariance.product(self.means, constants, np.dtype(path))

    def path(self, dtype: np.dtype, before: str = "") -> str:
        """The cheapest way to evaluate this mixture that is accurate enough for rows of this type.

        The bound is computed from the model alone; the way of the pass before may go on until it is 4 times over.
        """
        error = self.covariance.product_error(self.means)
        allowed = {"float32": PRODUCT_FLOAT32_ERROR, "float64": PRODUCT_FLOAT64_ERROR}
        ways = ("float32", "float64") if dtype == np.float32 else ("float64",)
        for way in ways:
            slack = HYSTERESIS if way == before else 1.0
            if error * float(np.finfo(way).eps) / 2 <= allowed[way] * slack:
                return way
        return "centred"

    def learn(self, sums: Moments, floor: Array) -> Mixture:
        """The M-step. A component that has lost all its rows keeps its mean and covariance."""
        dead = ~(sums.mass > 10 * np.finfo(np.float64).eps * max(1.0, sums.mass.sum()))
        if dead.any():
            # Its own moments stand in for those of the rows that it no longer has.
            sums = sums.with_components(dead, self, floor)
            names = ", ".join(str(j) for j in np.flatnonzero(dead))
            warnings.warn(
                f"component {names} lost all its rows and was kept where it was; ask for fewer components "
                "or start from other means",
                CollapsedComponentWarning,
                stacklevel=2,
            )
        return sums.estimate(self.structure, floor)

    def rescaled(self, scale: Array, means: Array) -> Mixture:
        """The same mixture of x * scale, with these means."""
        return Mixture(self.weights, means, self.covariance.rescaled(scale), self.structure)


@dataclass(frozen=True)
class Moments(Sums):
    """What one pass learns about each of k components in d features, about an origin."""

    mass: Array  # (k,)
    first: Array  # (k, d)
    second: Array  # (k,), (k, d), (k, d, d) or (d, d)
    score: float  # sum of w * log p(x)
    certainty: float  # sum of w * log of the largest responsibility
    origin: Origin  # of each component's moments

    def with_components(self, which: Array, model: Mixture, floor: Array) -> Moments:
        """These components as the model has them, less the smoothing that estimating adds, with a negligible mass."""
        mass = np.where(which, TINY**0.5, self.mass)
        offset = model.means - self.origin.about(model.means)
        first = np.where(which[:, None], mass[:, None] * offset, self.first)
        second = self.second
        if model.structure.order is not Order.pooled:
            own = _unsmoothed(model, floor) + _outer(offset, model.structure.order)
            axes = (slice(None),) + (None,) * (own.ndim - 1)
            second = np.where(which[axes], mass[axes] * own, second)
        return Moments(mass, first, second, self.score, self.certainty, self.origin)

    def estimate(self, structure: Structure, floor: Array) -> Mixture:
        """The mixture of this structure that fits these moments best."""
        offset = self.first / self.mass[:, None]
        axes = (slice(None),) + (None,) * (self.second.ndim - 1)
        outer = _outer(offset, structure.order)
        if structure.order is Order.pooled:
            scatter = self.second - np.einsum("k,kde->de", self.mass, outer)
        else:
            scatter = self.second - self.mass[axes] * outer
        covariance = structure.estimate(self.mass, scatter, floor)
        return Mixture(self.mass / self.mass.sum(), self.origin.about(offset) + offset, covariance, structure)


def _unsmoothed(model: Mixture, floor: Array) -> Array:
    """Second moments about the means of rows that would give these covariances again."""
    values = model.covariance.values
    if model.structure.order is Order.trace:
        return len(floor) * (values - floor.mean())
    return values - (floor if model.structure.order is Order.diagonal else np.diag(floor))


def _outer(offset: Array, order: Order) -> Array:
    """offset offset', as much of it as the order keeps, for each component."""
    if order is Order.trace:
        return (offset**2).sum(axis=1)
    if order is Order.diagonal:
        return offset**2
    return offset[:, :, None] * offset[:, None, :]


@dataclass(frozen=True)
class Origin:
    """What moments are taken about: the frame's origin, or the means that a pass started from."""

    means: Array | None = None  # (k, d)

    def about(self, like: Array) -> Array:
        return np.zeros_like(like) if self.means is None else self.means

    def __add__(self, other: Origin) -> Origin:
        return self  # the same question has the same origin


@dataclass(frozen=True)
class Explain(Linear[Moments]):
    """Share each row out among the components that explain it (E-step)."""

    mixture: Mixture
    frame: Frame
    path: str  # "float32" | "float64": the product in this type; "centred"
    floor: Array  # (d,) smoothing of the squared features, in the frame

    def _densities(self) -> Densities:
        return self.mixture.densities(self.path, self.floor, float(np.log(self.frame.scale).sum()))

    def _origin(self) -> Origin:
        return Origin(self.mixture.means if self.path == "centred" else None)

    def zero(self) -> Moments:
        return _no_moments(*self.mixture.shape, self.mixture.structure.order, self._origin())

    def features(self) -> Features | None:
        # Centred rows, and those whitened by a shared covariance, are each mixture's own.
        own = self.path == "centred" or self.mixture.structure.order is Order.pooled
        return None if own else Features(self.frame, self.mixture.structure.order, self.path)

    @classmethod
    def map_all(cls, questions: Sequence[Explain], block: Block, ops: Kernels) -> list[Moments]:
        densities = joined([question._densities() for question in questions])
        found = ops.explain(block.x, block.w, questions[0].frame, densities)
        return [Moments(*own, origin=q._origin()) for q, own in zip(questions, found, strict=True)]

    def own_bytes(self) -> int:
        return 16 * self.mixture.shape[0]

    def row_bytes(self) -> int:
        d = self.mixture.shape[1]
        return self.own_bytes() + 8 * (d + (d * (d + 1) // 2 if self.mixture.structure.order is Order.full else d))


def _no_moments(k: int, d: int, order: Order, origin: Origin) -> Moments:
    shape = {Order.trace: (k,), Order.diagonal: (k, d), Order.full: (k, d, d), Order.pooled: (d, d)}[order]
    return Moments(np.zeros(k), np.zeros((k, d)), np.zeros(shape), 0.0, 0.0, origin)


@dataclass(frozen=True)
class Learn(Reduction[Moments]):
    """Moments of rows whose shares are given: the last k columns of each row, or one column of labels."""

    k: int
    order: Order
    frame: Frame
    labelled: bool

    def zero(self) -> Moments:
        return _no_moments(self.k, len(self.frame.shift), self.order, Origin())

    def map(self, block: Block, ops: Kernels) -> Moments:
        d = len(self.frame.shift)
        x, share = block.x[:, :d], block.x[:, d:].astype(np.float64)
        if self.labelled:
            share = (share == namespace(share).arange(self.k)).astype(np.float64)
        if block.w is not None:
            share *= block.w[:, None]
        mass, first, second = map(to_host, moments(enter(x, self.frame), share, self.order))
        return Moments(mass, first, second, 0.0, 0.0, origin=Origin())

    def row_bytes(self) -> int:
        return 8 * (3 * len(self.frame.shift) + 2 * self.k)
