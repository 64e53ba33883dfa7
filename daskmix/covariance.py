"""Covariances of the components, and how their densities are evaluated: one kind for each order of statistic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Self

import numpy as np
from scipy.linalg.lapack import dtrtri

from daskmix.block import Array
from daskmix.errors import CollapsedComponentError, collapsed_components
from daskmix.kernels import Centred, Order, Product, upper_triangle


def beside(each: Array, values: Array) -> Array:
    """A number for each component (k,), shaped so that it meets the values (k, ...) of components."""
    return each[(slice(None),) + (None,) * (values.ndim - 1)]


@dataclass(frozen=True)
class Covariance(ABC):
    """The covariances of k components in d features."""

    values: Array  # spherical (k,), diagonal (k, d), full (k, d, d), shared (d, d)
    factors: Array  # F, the same shape: F F' is the precision

    order: ClassVar[Order]

    @classmethod
    @abstractmethod
    def of(cls, values: Array) -> Self:
        """The covariances with these values.

        Raises
        ------
        CollapsedComponentError
            Where one of them is singular; the error names the component.
        """

    @classmethod
    @abstractmethod
    def of_precisions(cls, precisions: Array) -> Self:
        """The covariances with these precisions, which are positive definite, in scikit-learn's shape."""

    @abstractmethod
    def scatter(self, mass: Array, d: int) -> Array:
        """About their means, of so much mass of rows that would give these covariances again."""

    @abstractmethod
    def log_det_factors(self, d: int) -> Array:
        """log |F_k|: (k,), or () where all components share one."""

    @abstractmethod
    def precisions(self) -> Array:
        """F F', the same shape as the values."""

    @abstractmethod
    def dense(self, k: int, d: int) -> Array:
        """One full matrix for each component: (k, d, d)."""

    @abstractmethod
    def rescaled(self, scale: Array) -> Covariance:
        """The covariances of x * scale."""

    def of_components(self, numbers: Array) -> Self:
        """Those of the components with these numbers."""
        return type(self)(self.values[numbers], self.factors[numbers])

    def with_components(self, which: Array, other: Covariance) -> Covariance:
        """With those of another for these components (k,); all, or none, where all share one."""
        if which.all() or not which.any():
            return other if which.all() else self
        mask = beside(which, self.values)
        return type(self)(np.where(mask, other.values, self.values), np.where(mask, other.factors, self.factors))

    @abstractmethod
    def product(self, means: Array, constants: Array, dtype: np.dtype) -> Product:
        """The densities as one product of features, given log p(mean_k, k)."""

    @abstractmethod
    def product_error(self, means: Array) -> float:
        """Bound on the error of that product, in units of its rounding."""

    def centred(self, means: Array, constants: Array) -> Centred:
        """The densities about each mean."""
        return Centred(self.order, means, self.factors, constants)

    def smoothed(self, floor: Array, k: int, d: int) -> Array:
        """tr(P_k diag(floor)) / 2, what a log density loses when the data are smoothed by `floor`: (k,)."""
        precision = self.dense_precision_diagonal(k, d)
        return 0.5 * precision @ floor

    @abstractmethod
    def dense_precision_diagonal(self, k: int, d: int) -> Array:
        """(k, d)."""

    @abstractmethod
    def whitened(self, offsets: Array) -> Array:
        """offset F of each component, so that its square is the Mahalanobis distance: (..., k, d)."""

    @abstractmethod
    def misfit(self, values: Array, d: int) -> Array:
        """tr(P_k V_k) for covariances V of the same kind: (k,), or () where all components share one."""

    @abstractmethod
    def coordinates(self) -> Array:
        """Numbers without bounds, one row for each component: half the log of variances, or log-Cholesky factors."""

    @classmethod
    @abstractmethod
    def at(cls, coordinates: Array, d: int) -> Self:
        """The covariances with these coordinates, in one row.

        Raises
        ------
        CollapsedComponentError
            Where one of them is singular, or beyond what numbers can hold.
        """

    @abstractmethod
    def in_metric(self, moves: Array, d: int) -> Array:
        """Moves of the coordinates (m, k, q) in units of a row's Fisher information about them, the same shape."""


def _bound(reach: Array, precision: Array, mean_in_precision: Array, p: int) -> float:
    """sqrt(p) max_k (a'|P|a + |P mu|'a), a = |mu| + sd: never below what was measured."""
    quadratic = np.einsum("kd,kd->k", reach, precision)
    linear = np.einsum("kd,kd->k", reach, np.abs(mean_in_precision))
    return float(np.sqrt(p) * np.max(quadratic + linear))


class FullCovariance(Covariance):
    order = Order.full

    @classmethod
    def of(cls, values: Array) -> Self:
        return cls(values, _factors(values))

    @classmethod
    def of_precisions(cls, precisions: Array) -> Self:
        return cls.of(np.linalg.inv(precisions))

    def scatter(self, mass: Array, d: int) -> Array:
        return mass[:, None, None] * self.values

    def log_det_factors(self, d: int) -> Array:
        return np.log(np.diagonal(self.factors, axis1=1, axis2=2)).sum(axis=1)

    def precisions(self) -> Array:
        return self.factors @ self.factors.transpose(0, 2, 1)

    def dense(self, k: int, d: int) -> Array:
        return self.values

    def dense_precision_diagonal(self, k: int, d: int) -> Array:
        return (self.factors**2).sum(axis=2)

    def rescaled(self, scale: Array) -> Covariance:
        return FullCovariance(self.values * np.outer(scale, scale), self.factors / scale[:, None])

    def product(self, means: Array, constants: Array, dtype: np.dtype) -> Product:
        d = means.shape[1]
        precisions = self.precisions()
        linear = np.einsum("kde,ke->kd", precisions, means)
        # The upper triangle of -P/2, with what lies below the diagonal counted above it.
        rows, columns = upper_triangle(d)
        quadratic = -precisions[:, rows, columns] * np.where(rows == columns, 0.5, 1.0)
        constant = constants - 0.5 * (means * linear).sum(axis=1)
        return Product(self.order, np.column_stack([linear, quadratic, constant]).astype(dtype))

    def product_error(self, means: Array) -> float:
        d = means.shape[1]
        reach = np.abs(means) + np.sqrt(np.diagonal(self.values, axis1=1, axis2=2))
        precisions = self.precisions()
        spread = np.einsum("kde,ke->kd", np.abs(precisions), reach)
        return _bound(reach, spread, np.einsum("kde,ke->kd", precisions, means), 1 + d + d * (d + 1) // 2)

    def whitened(self, offsets: Array) -> Array:
        return np.einsum("...kd,kde->...ke", offsets, self.factors)

    def misfit(self, values: Array, d: int) -> Array:
        return np.einsum("kde,kde->k", self.precisions(), values)

    def coordinates(self) -> Array:
        return _log_cholesky(self.values)

    @classmethod
    def at(cls, coordinates: Array, d: int) -> Self:
        return cls.of(_of_log_cholesky(coordinates, d))

    def in_metric(self, moves: Array, d: int) -> Array:
        return _cholesky_moves(self.values, self.factors, moves)


class SharedCovariance(Covariance):
    order = Order.pooled

    @classmethod
    def of(cls, values: Array) -> Self:
        return cls(values, _factors(values[None], shared=True)[0])

    def of_components(self, numbers: Array) -> Self:
        return self

    @classmethod
    def of_precisions(cls, precisions: Array) -> Self:
        return cls.of(np.linalg.inv(precisions))

    def scatter(self, mass: Array, d: int) -> Array:
        return mass.sum() * self.values

    def log_det_factors(self, d: int) -> Array:
        return np.log(np.diagonal(self.factors)).sum()

    def precisions(self) -> Array:
        return self.factors @ self.factors.T

    def dense(self, k: int, d: int) -> Array:
        return np.broadcast_to(self.values, (k, d, d))

    def dense_precision_diagonal(self, k: int, d: int) -> Array:
        return np.broadcast_to((self.factors**2).sum(axis=1), (k, d))

    def rescaled(self, scale: Array) -> Covariance:
        return SharedCovariance(self.values * np.outer(scale, scale), self.factors / scale[:, None])

    def product(self, means: Array, constants: Array, dtype: np.dtype) -> Product:
        whitened = means @ self.factors
        half = np.full((len(means), 1), -0.5)
        constant = constants - 0.5 * (whitened**2).sum(axis=1)
        return Product(self.order, np.column_stack([whitened, half, constant]).astype(dtype), self.factors)

    def product_error(self, means: Array) -> float:
        whitened = means @ self.factors
        reach = np.abs(whitened) + 1.0
        # Whitening itself rounds: its terms may be larger than their sum.
        terms = (np.abs(means) + np.sqrt(np.diag(self.values))) @ np.abs(self.factors)
        return max(_bound(reach, reach, whitened, means.shape[1] + 2), _bound(reach, terms, whitened, means.shape[1]))

    def whitened(self, offsets: Array) -> Array:
        return offsets @ self.factors

    def misfit(self, values: Array, d: int) -> Array:
        return (self.precisions() * values).sum()

    def coordinates(self) -> Array:
        return _log_cholesky(self.values[None])

    @classmethod
    def at(cls, coordinates: Array, d: int) -> Self:
        return cls.of(_of_log_cholesky(coordinates, d)[0])

    def in_metric(self, moves: Array, d: int) -> Array:
        return _cholesky_moves(self.values[None], self.factors[None], moves)


class _Variances(Covariance):
    """Covariances without correlations: their values are variances."""

    @classmethod
    def of(cls, values: Array) -> Self:
        return cls(values, _inverse_root(values))

    @classmethod
    def of_precisions(cls, precisions: Array) -> Self:
        return cls(1.0 / precisions, np.sqrt(precisions))

    def precisions(self) -> Array:
        return self.factors**2


class DiagonalCovariance(_Variances):
    order = Order.diagonal

    def scatter(self, mass: Array, d: int) -> Array:
        return mass[:, None] * self.values

    def log_det_factors(self, d: int) -> Array:
        return np.log(self.factors).sum(axis=1)

    def dense(self, k: int, d: int) -> Array:
        return self.values[:, :, None] * np.eye(d)

    def dense_precision_diagonal(self, k: int, d: int) -> Array:
        return self.precisions()

    def rescaled(self, scale: Array) -> Covariance:
        return DiagonalCovariance(self.values * scale**2, self.factors / scale)

    def product(self, means: Array, constants: Array, dtype: np.dtype) -> Product:
        precisions = self.precisions()
        constant = constants - 0.5 * (precisions * means**2).sum(axis=1)
        theta = np.column_stack([precisions * means, -0.5 * precisions, constant])
        return Product(self.order, theta.astype(dtype))

    def product_error(self, means: Array) -> float:
        precisions = self.precisions()
        reach = np.abs(means) + np.sqrt(self.values)
        return _bound(reach, precisions * reach, precisions * means, 1 + 2 * means.shape[1])

    def whitened(self, offsets: Array) -> Array:
        return offsets * self.factors

    def misfit(self, values: Array, d: int) -> Array:
        return (self.precisions() * values).sum(axis=1)

    def coordinates(self) -> Array:
        return 0.5 * np.log(self.values)

    @classmethod
    def at(cls, coordinates: Array, d: int) -> Self:
        return cls.of(_squared_exp(coordinates.reshape(-1, d)))

    def in_metric(self, moves: Array, d: int) -> Array:
        return np.sqrt(2.0) * moves


class SphericalCovariance(_Variances):
    order = Order.trace

    def scatter(self, mass: Array, d: int) -> Array:
        return d * mass * self.values

    def log_det_factors(self, d: int) -> Array:
        return d * np.log(self.factors)

    def dense(self, k: int, d: int) -> Array:
        return self.values[:, None, None] * np.eye(d)

    def dense_precision_diagonal(self, k: int, d: int) -> Array:
        return np.broadcast_to(self.precisions()[:, None], (k, d))

    def rescaled(self, scale: Array) -> Covariance:
        # Only a common scale leaves a sphere round; see Structure.common_scale.
        return SphericalCovariance(self.values * scale[0] ** 2, self.factors / scale[0])

    def product(self, means: Array, constants: Array, dtype: np.dtype) -> Product:
        precisions = self.precisions()
        constant = constants - 0.5 * precisions * (means**2).sum(axis=1)
        theta = np.column_stack([precisions[:, None] * means, -0.5 * precisions, constant])
        return Product(self.order, theta.astype(dtype))

    def product_error(self, means: Array) -> float:
        precisions = self.precisions()[:, None]
        reach = np.abs(means) + np.sqrt(self.values)[:, None]
        return _bound(reach, precisions * reach, precisions * means, 2 + means.shape[1])

    def whitened(self, offsets: Array) -> Array:
        return offsets * self.factors[:, None]

    def misfit(self, values: Array, d: int) -> Array:
        return d * self.precisions() * values

    def coordinates(self) -> Array:
        return 0.5 * np.log(self.values)[:, None]

    @classmethod
    def at(cls, coordinates: Array, d: int) -> Self:
        return cls.of(_squared_exp(coordinates))

    def in_metric(self, moves: Array, d: int) -> Array:
        return np.sqrt(2.0 * d) * moves


def collapsed(component: int | None, why: str) -> CollapsedComponentError:
    """To raise where a component, or the covariance that all share, is singular."""
    who = "the shared covariance" if component is None else f"component {component}"
    return collapsed_components(
        () if component is None else (component,),
        f'{who} collapsed: {why}; pass reg_covar="auto" or a larger reg_covar, or ask for fewer components',
    )


def _factors(covariances: Array, shared: bool = False) -> Array:
    """The upper triangular F with F F' the inverse, of each of these matrices: (k, d, d)."""
    # Matrices are brought to unit diagonal first, so that units decide nothing.
    with np.errstate(invalid="ignore"):  # refused in the next lines
        sd = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    usable = np.isfinite(covariances).all(axis=(1, 2)) & (sd > 0).all(axis=1)
    if not usable.all():
        j = int(np.argmin(usable))
        which = int(np.argmin(np.nan_to_num(sd[j])))
        raise collapsed(None if shared else j, f"feature {which} has no variance in it")
    lower = _lower(covariances / (sd[:, :, None] * sd[:, None, :]))
    definite = np.diagonal(lower, axis1=1, axis2=2).min(axis=1) >= 1e-7
    if not definite.all():
        why = "its features depend linearly on each other, or it has too few distinct rows"
        raise collapsed(None if shared else int(np.argmin(definite)), why)
    inverse = np.stack([dtrtri(a, lower=1)[0] for a in lower])
    return (inverse / sd[:, None, :]).transpose(0, 2, 1)


def _lower(matrices: Array) -> Array:
    """Lower Cholesky factors (k, d, d); zero where there is none."""
    try:
        return np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        if len(matrices) == 1:
            return np.zeros_like(matrices)
        return np.concatenate([_lower(matrices[j : j + 1]) for j in range(len(matrices))])


def _inverse_root(variances: Array) -> Array:
    """1 / sqrt, refused where a variance is not positive; the first axis counts components."""
    bad = ~(variances > 0) | ~np.isfinite(variances)
    if bad.any():
        where = np.argwhere(bad)[0]
        feature = f"feature {where[1]}" if len(where) > 1 else "every feature"
        raise collapsed(int(where[0]), f"{feature} has no variance in it")
    return 1.0 / np.sqrt(variances)


def _squared_exp(halves: Array) -> Array:
    with np.errstate(over="ignore"):  # refused afterwards
        return np.exp(2.0 * halves)


@cache
def _lower_triangle(d: int) -> tuple[Array, Array]:
    """Rows and columns of what is not above the diagonal: they are asked for in every step."""
    return np.tril_indices(d)


def _log_cholesky(values: Array) -> Array:
    """The rows of lower Cholesky factors with the log of their diagonals, of (k, d, d): (k, d (d + 1) / 2)."""
    d = values.shape[-1]
    lower = np.linalg.cholesky(values)
    diagonal = np.arange(d)
    lower[:, diagonal, diagonal] = np.log(lower[:, diagonal, diagonal])
    rows, columns = _lower_triangle(d)
    return lower[:, rows, columns]


def _of_log_cholesky(coordinates: Array, d: int) -> Array:
    """The other way, from one row of them all: (k, d, d)."""
    rows, columns = _lower_triangle(d)
    coordinates = coordinates.reshape(-1, len(rows))
    lower = np.zeros((len(coordinates), d, d))
    with np.errstate(over="ignore", invalid="ignore"):  # refused afterwards
        lower[:, rows, columns] = np.where(rows == columns, np.exp(coordinates), coordinates)
        return lower @ lower.transpose(0, 2, 1)


def _cholesky_moves(values: Array, factors: Array, moves: Array) -> Array:
    """inv(L) dL for moves of the log-Cholesky coordinates of L L', the diagonal times sqrt 2: (m, k, d (d + 1) / 2).

    The Fisher information of N(mu, L L') about L is |inv(L) dL|^2, where the diagonal counts twice.
    """
    d = values.shape[-1]
    rows, columns = _lower_triangle(d)
    diagonal = rows == columns
    scale = np.ones((len(values), len(rows)))
    scale[:, diagonal] = np.diagonal(np.linalg.cholesky(values), axis1=1, axis2=2)
    lower = np.zeros((*moves.shape[:2], d, d))
    lower[:, :, rows, columns] = moves * scale
    moved = (factors.transpose(0, 2, 1) @ lower)[:, :, rows, columns]
    moved[:, :, diagonal] *= np.sqrt(2.0)
    return moved
