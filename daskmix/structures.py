"""The fourteen covariance structures of mclust, and how each is estimated from mass and scatter.

Their names say whether volume, shape and orientation of the components' ellipsoids are Equal, Vary or are those of the
Identity (Celeux & Govaert 1995, whose section 4 has the estimates; `W_k` there is the scatter of component k here).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from daskmix.block import Array
from daskmix.covariance import (
    Covariance,
    DiagonalCovariance,
    FullCovariance,
    SharedCovariance,
    SphericalCovariance,
    collapsed,
)
from daskmix.kernels import Order

ENOUGH = 1e-12  # relative change of an estimate that is found step by step
MOST_STEPS = 1000
MOST_TURNS = 100
MOST_HALVINGS = 30
RANDOM_AXES = 10
LARGEST_TURN = 0.5  # radians, of one feature towards another in one step
GOLDEN = (5**0.5 - 1) / 2


class Structure(ABC):
    """How the covariances of k components are estimated; a small value without state."""

    covariance: type[Covariance]
    common_scale: ClassVar[bool] = False  # whether features must share one unit
    constrained: ClassVar[bool] = True  # whether not all covariances of its kind have this structure

    @property
    def order(self) -> Order:
        """What statistic it needs."""
        return self.covariance.order

    def estimate(self, mass: Array, scatter: Array, floor: Array, near: Covariance | None = None) -> Covariance:
        """Maximum likelihood from mass (k,), scatter about the means (shape of the order) and smoothing (d,).

        Where there may be several maxima, the one that an ascent from `near`, of this structure, leads to: so the
        estimate is never worse than that.

        Raises
        ------
        CollapsedComponentError
            Where a covariance is singular; the error names the component.
        """
        return self.covariance.of(self.values(mass, smoothed(mass, scatter, floor, self.order), len(floor), near))

    @abstractmethod
    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        """The values of the covariances that fit this scatter best."""

    @abstractmethod
    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of k covariances in d features."""

    def nearest(self, covariance: Covariance, weights: Array, d: int, near: Covariance | None = None) -> Covariance:
        """The covariance of this structure that explains rows of this one best, component by component."""
        if not self.constrained:
            return covariance
        return self.estimate(weights, covariance.scatter(weights, d), np.zeros(d), near)


def smoothed(mass: Array, scatter: Array, floor: Array, order: Order) -> Array:
    """The scatter of rows that are smoothed."""
    if order is Order.trace:
        return scatter + mass * floor.sum()
    if order is Order.diagonal:
        return scatter + mass[:, None] * floor
    return scatter + (mass.sum() if order is Order.pooled else mass[:, None, None]) * np.diag(floor)


@dataclass(frozen=True)
class Fixed(Structure):
    """Covariances that are given, one for all components, and stay as they are."""

    covariance: type[Covariance]
    common_scale = True

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        if near is None:
            raise ValueError("fixed covariances are given, not estimated")
        if self.order is Order.pooled:
            return near.values
        return np.repeat(near.values[:1], len(mass), axis=0)

    def n_parameters(self, k: int, d: int) -> int:
        return 0


# --- balls ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spherical(Structure):
    """Each component is a ball of its own size (VII)."""

    covariance = SphericalCovariance
    common_scale = True
    constrained = False

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        return scatter / (mass * d)

    def n_parameters(self, k: int, d: int) -> int:
        return k


@dataclass(frozen=True)
class EqualSpherical(Structure):
    """All components are balls of one size (EII)."""

    covariance = SphericalCovariance
    common_scale = True

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        return np.full(len(mass), scatter.sum() / (mass.sum() * d))

    def n_parameters(self, k: int, d: int) -> int:
        return 1


# --- ellipsoids along the axes ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Diagonal(Structure):
    """Each component has its own variance of each feature (VVI)."""

    covariance = DiagonalCovariance
    constrained = False

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        return scatter / mass[:, None]

    def n_parameters(self, k: int, d: int) -> int:
        return k * d


@dataclass(frozen=True)
class EqualDiagonal(Structure):
    """All components have the same variance of each feature (EEI)."""

    covariance = DiagonalCovariance

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        return np.tile(scatter.sum(axis=0) / mass.sum(), (len(mass), 1))

    def n_parameters(self, k: int, d: int) -> int:
        return d


@dataclass(frozen=True)
class DiagonalEqualShape(Structure):
    """Ellipsoids along the axes, of one shape, each of its own volume (VEI)."""

    covariance = DiagonalCovariance

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        return _of_one_shape(mass, scatter)

    def n_parameters(self, k: int, d: int) -> int:
        return k + d - 1


@dataclass(frozen=True)
class DiagonalEqualVolume(Structure):
    """Ellipsoids along the axes, of one volume, each of its own shape (EVI)."""

    covariance = DiagonalCovariance

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        return _of_one_volume(mass, scatter)

    def n_parameters(self, k: int, d: int) -> int:
        return 1 + k * (d - 1)


# --- ellipsoids of any orientation ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Full(Structure):
    """Each component has its own ellipsoid (VVV)."""

    covariance = FullCovariance
    constrained = False

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        return scatter / mass[:, None, None]

    def n_parameters(self, k: int, d: int) -> int:
        return k * d * (d + 1) // 2


@dataclass(frozen=True)
class Tied(Structure):
    """All components share one ellipsoid (EEE)."""

    covariance = SharedCovariance
    constrained = False

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        return scatter / mass.sum()

    def n_parameters(self, k: int, d: int) -> int:
        return d * (d + 1) // 2


@dataclass(frozen=True)
class OwnVolume(Structure):
    """One ellipsoid, for each component in its own volume (VEE)."""

    covariance = FullCovariance

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        volumes = np.ones(len(mass))
        for _ in range(MOST_STEPS):
            shape = SharedCovariance.of(np.einsum("k,kde->de", 1.0 / volumes, scatter))
            sizes = np.einsum("kde,de->k", scatter, shape.precisions()) / mass
            _refuse_none(sizes)
            before, volumes = volumes, sizes / sizes[0]  # what all have in common is left to the shape
            if np.abs(volumes / before - 1.0).max() <= ENOUGH:
                break
        shared = np.einsum("k,kde->de", 1.0 / volumes, scatter) / mass.sum()
        return volumes[:, None, None] * shared

    def n_parameters(self, k: int, d: int) -> int:
        return k - 1 + d * (d + 1) // 2


@dataclass(frozen=True)
class EqualVolume(Structure):
    """Ellipsoids of one volume, each of its own shape and orientation (EVV)."""

    covariance = FullCovariance

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        sizes = np.exp(-2.0 * FullCovariance.of(scatter).log_det_factors(d) / d)
        return scatter * (sizes.sum() / mass.sum() / sizes)[:, None, None]

    def n_parameters(self, k: int, d: int) -> int:
        return 1 + k * (d - 1) + k * d * (d - 1) // 2


@dataclass(frozen=True)
class OwnOrientation(Structure):
    """One ellipsoid, for each component turned its own way (EEV)."""

    covariance = FullCovariance
    common_scale = True

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        spread, axes = np.linalg.eigh(scatter)
        return _turned(np.tile(spread.sum(axis=0) / mass.sum(), (len(mass), 1)), axes)

    def n_parameters(self, k: int, d: int) -> int:
        return d + k * d * (d - 1) // 2


@dataclass(frozen=True)
class EqualShape(Structure):
    """Ellipsoids of one shape, each of its own volume and turned its own way (VEV)."""

    covariance = FullCovariance
    common_scale = True

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        spread, axes = np.linalg.eigh(scatter)
        return _turned(_of_one_shape(mass, spread), axes)

    def n_parameters(self, k: int, d: int) -> int:
        return k + d - 1 + k * d * (d - 1) // 2


@dataclass(frozen=True)
class EqualOrientation(Structure):
    """Ellipsoids along common axes, each of its own volume and shape (VVE; Flury 1984)."""

    covariance = FullCovariance
    common_scale = True

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        def misfit(logs: Array) -> tuple[float, Array]:
            return float(mass @ logs.sum(axis=1)), mass

        axes, spread = _common_axes(scatter, near, misfit)
        return _turned(spread / mass[:, None], axes)

    def n_parameters(self, k: int, d: int) -> int:
        return k * d + d * (d - 1) // 2


@dataclass(frozen=True)
class EqualVolumeAndOrientation(Structure):
    """Ellipsoids of one volume along common axes, each of its own shape (EVE)."""

    covariance = FullCovariance
    common_scale = True

    def values(self, mass: Array, scatter: Array, d: int, near: Covariance | None) -> Array:
        def misfit(logs: Array) -> tuple[float, Array]:
            sizes = np.exp(logs.mean(axis=1))
            return float(mass.sum() * d * np.log(sizes.sum())), mass.sum() * sizes / sizes.sum()

        axes, spread = _common_axes(scatter, near, misfit)
        return _turned(_of_one_volume(mass, spread), axes)

    def n_parameters(self, k: int, d: int) -> int:
        return 1 + k * (d - 1) + d * (d - 1) // 2


# --- how they are found -----------------------------------------------------------------------------------------------


def _turned(variances: Array, axes: Array) -> Array:
    """The covariances with these variances (k, d) along the columns of axes, (d, d) or (k, d, d)."""
    return (axes * variances[:, None, :]) @ np.swapaxes(axes, -1, -2)


def _refuse_none(spread: Array) -> None:
    """Refuse components whose rows are all in one place, given the scatter of each, (k,) or (k, d)."""
    empty = ~(spread.reshape(len(spread), -1).sum(axis=1) > 0)
    if empty.any():
        raise collapsed(int(np.argmax(empty)), "its rows are all alike")


def _of_one_shape(mass: Array, spread: Array) -> Array:
    """Variances (k, d) that are a volume of each component times a shape of all, from the scatter along each axis.

    Volumes and shape are found by turns, each the best for the other: the misfit is convex in their logarithms, so
    there is one minimum.
    """
    _refuse_none(spread)
    d = spread.shape[1]
    volumes = np.ones(len(mass))
    shape = spread.sum(axis=0)
    if not (shape > 0).all():
        raise collapsed(None, f"feature {int(np.argmin(shape))} has no variance in it")
    for _ in range(MOST_STEPS):
        shape = (spread / volumes[:, None]).sum(axis=0) / mass.sum()
        before, volumes = volumes, (spread / shape).sum(axis=1) / (d * mass)
        if np.abs(volumes / before - 1.0).max() <= ENOUGH:
            break
    return volumes[:, None] * shape


def _of_one_volume(mass: Array, spread: Array) -> Array:
    """Variances (k, d) whose products over the features are equal, from the scatter along each axis."""
    with np.errstate(divide="ignore"):  # a volume of zero is refused with the covariance
        sizes = np.exp(np.log(spread).mean(axis=1, keepdims=True))
    return spread / np.where(sizes > 0, sizes, 1.0) * (sizes.sum() / mass.sum())


Misfit = Callable[[Array], tuple[float, Array]]  # of the logs of scatter (k, d): its value, and its slope for each k


def _common_axes(scatter: Array, near: Covariance | None, misfit: Misfit) -> tuple[Array, Array]:
    """Axes (d, d) for all components along which their scatter explains them best, and the scatter along them (k, d).

    There may be several optima. Where no axes are known, those of all rows, of each component and some at random are
    turned until they fit, and the best are taken.
    """
    _refuse_none(np.trace(scatter, axis1=1, axis2=2))
    if near is not None:
        starts = [_axes(near.values)]
    else:
        random = np.random.default_rng(0).standard_normal((RANDOM_AXES, *scatter.shape[1:]))
        likely = np.linalg.eigh(np.concatenate([scatter.sum(axis=0)[None], scatter]))[1]
        starts = [*likely, *np.linalg.qr(random)[0]]
    return min((_turn(scatter, axes, misfit) for axes in starts), key=lambda found: found[0])[1:]


def _axes(covariances: Array) -> Array:
    """The axes that these covariances (k, d, d) have in common: those of a mixture of them that hides none."""
    shares = 0.5 + np.mod(GOLDEN * np.arange(len(covariances)), 1.0)
    sizes = np.trace(covariances, axis1=1, axis2=2)
    axes: Array = np.linalg.eigh(np.einsum("k,kde->de", shares / sizes, covariances))[1]
    return axes


def _turn(scatter: Array, axes: Array, misfit: Misfit) -> tuple[float, Array, Array]:
    """The misfit after a descent over rotations, and where it ended.

    Steps are Newton's with the curvature of matrices that have common axes, in pairs of features (Pham 2001,
    section 3); halved until they gain.
    """
    rows, columns = _pairs(scatter.shape[-1])
    own, spread = _along(scatter, axes)
    value, slope = misfit(np.log(spread))
    for _ in range(MOST_TURNS):
        a, b = spread[:, rows], spread[:, columns]
        gradient = 2.0 * slope @ (own[:, rows, columns] * (1.0 / b - 1.0 / a))
        curvature = 2.0 * slope @ ((a - b) ** 2 / (a * b))
        turn = -gradient / np.maximum(curvature, np.abs(gradient) / LARGEST_TURN + 1e-300)
        last = -gradient @ turn <= ENOUGH * slope.sum()
        for _ in range(MOST_HALVINGS):
            turned = axes @ _rotation(turn, rows, columns, len(axes))
            there = _along(scatter, turned)
            value_there, slope_there = misfit(np.log(there[1]))
            if last or value_there < value:
                break
            turn = 0.5 * turn
        else:
            break
        axes, (own, spread), value, slope = turned, there, value_there, slope_there
        if last:
            break
    return value, axes, spread


@cache
def _pairs(d: int) -> tuple[Array, Array]:
    return np.triu_indices(d, 1)


def _along(scatter: Array, axes: Array) -> tuple[Array, Array]:
    """The scatter in these axes (k, d, d), and along each (k, d)."""
    own = axes.T @ scatter @ axes
    spread = np.diagonal(own, axis1=1, axis2=2)
    # Rounding may leave less than nothing; what is singular is refused with the covariance.
    return own, np.maximum(spread, np.finfo(np.float64).eps ** 2 * spread.max(axis=1, keepdims=True) + 1e-300)


def _rotation(turn: Array, rows: Array, columns: Array, d: int) -> Array:
    """Near the exponential of the antisymmetric matrix with these numbers above the diagonal (Cayley): (d, d)."""
    half = np.zeros((d, d))
    half[rows, columns] = 0.5 * turn
    half -= half.T
    rotation: Array = np.linalg.solve(np.eye(d) - half, np.eye(d) + half)
    return rotation
