"""Gaussian mixtures, and those of Student's t: densities, the M-step, and what follows from parameters alone."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from scipy.special import betaln, digamma, gammaln

from daskmix.block import Array
from daskmix.covariance import Covariance, FullCovariance, beside
from daskmix.errors import CollapsedComponentWarning, InputError
from daskmix.family import Family
from daskmix.kernels import (
    LOG_2PI,
    Centred,
    Densities,
    Explained,
    Observed,
    Order,
    Product,
    Tails,
)
from daskmix.moments import TINY, Moments, Origin, about, of_each, on_diagonal, outer, shrunk
from daskmix.structures import Structure, smoothed

PRODUCT_FLOAT32_ERROR = 1e-3
PRODUCT_FLOAT64_ERROR = 1e-8
HYSTERESIS = 4.0


@dataclass(frozen=True)
class Mixture:
    """k components, Gaussian or Student's t, in the coordinates of a frame."""

    weights: Array  # (k,), or (k + 1,) with that of the noise
    means: Array  # (k, d)
    covariance: Covariance
    family: Family
    surplus: Array | None = None  # (k,) what log p(x, k) has beside what these say: they are means of a posterior
    nu: Array | None = None  # (k,) degrees of freedom of Student's t, whose scale matrices the covariances then are

    @property
    def shape(self) -> tuple[int, int]:
        k, d = self.means.shape
        return k, d

    @property
    def structure(self) -> Structure:
        return self.family.structure

    @property
    def order(self) -> Order:
        """How densities are evaluated: rows that are noise have no part in moments that components share."""
        order = self.structure.order
        return Order.full if order is Order.pooled and self.family.noise is not None else order

    @cached_property
    def _evaluated(self) -> Covariance:
        """The covariances in that order."""
        shared = self.covariance
        if self.order is shared.order:
            return shared
        each = (len(self.means), 1, 1)
        return FullCovariance(np.tile(shared.values, each), np.tile(shared.factors, each))

    @property
    def own_weights(self) -> Array:
        """Of the components alone: (k,)."""
        return self.weights[: len(self.means)]

    def n_parameters(self) -> int:
        return self.family.n_parameters(*self.shape)

    def densities(self, path: str, floor: Array, log_scale: float) -> Densities:
        """What the kernels need for log p(x, k), on data smoothed by `floor` and measured in units of the frame."""
        tails, covariance = self._tails(log_scale), self._evaluated
        # Tails have constants of their own, that come after them.
        smoothing = covariance.smoothed(floor, *self.shape)
        constants = self._constants(floor, log_scale) if tails is None else -smoothing
        made: Product | Centred
        if path == "centred":
            made = covariance.centred(self.means, constants)
        else:
            made = covariance.product(self.means, constants, np.dtype(path))
        made, noise = replace(made, tails=tails), self.family.noise
        return made if noise is None else made.beside(float(self._log_weights()[-1]) + noise.log_density)

    def _tails(self, log_scale: float) -> Tails | None:
        """What makes a Gaussian density, less a constant, one of Student's t."""
        if self.nu is None:
            return None
        d = self.shape[1]
        # The ratio of gamma functions of (nu + d) / 2 and nu / 2, which are large where nu is.
        ratio = gammaln(0.5 * d) - betaln(0.5 * self.nu, 0.5 * d)
        constants = self._log_weights() + self.covariance.log_det_factors(d) + ratio + log_scale
        return Tails(self.nu, constants - 0.5 * d * np.log(np.pi * self.nu))

    def densities_observed(self, path: str, floor: Array, log_scale: Array) -> Densities:
        """The same for rows with gaps, of which each feature has a scale of its own: (d,).

        Raises
        ------
        InputError
            Where components are Student's t, or there is noise.
        """
        if self.nu is not None or self.family.noise is not None:
            raise InputError(
                'Student\'s t and noise need rows without gaps; pass missing="drop", or leave nu and noise out'
            )
        order = self.structure.order
        if path == "centred" or order in (Order.full, Order.pooled):
            return self.observed(floor, log_scale)
        precisions = self.covariance.dense_precision_diagonal(*self.shape)
        there = log_scale + 0.5 * (np.log(precisions) - LOG_2PI - precisions * (floor + self.means**2))
        quadratic = -0.5 * (precisions[:, :1] if order is Order.trace else precisions)
        theta = np.column_stack([precisions * self.means, quadratic, there, self._beside_gaussian()])
        return Product(order, theta.astype(path), observed=True)

    def observed(self, floor: Array, log_scale: Array) -> Observed:
        """The safe way to them."""
        covariances = np.array(self.covariance.dense(*self.shape))
        return Observed(self.structure.order, self.means, covariances, self._beside_gaussian(), floor, log_scale)

    def _log_weights(self) -> Array:
        return np.log(np.maximum(self.weights, TINY))

    def _beside_gaussian(self) -> Array:
        """What log p(x, k) has beside the log density of a Gaussian, whichever values of a row are there: (k,)."""
        logs = self._log_weights()[: len(self.means)]
        # To integrate exp(mean of log p(x, k)) over values that are missing leaves a marginal density times the same.
        return logs if self.surplus is None else logs + self.surplus

    def completed(self, found: Explained, floor: Array) -> Explained:
        """With what is to be expected of values that are missing, and do not depend on those that are there."""
        if found.seen is None:
            return found
        lacking = np.maximum(found.mass[:, None] - found.seen, 0.0)
        # Estimating smooths all rows, and these variances are smoothed already.
        variances = 1.0 / self.covariance.dense_precision_diagonal(*self.shape) - floor
        second = found.second + on_diagonal(lacking * (self.means**2 + variances), self.structure.order)
        return found._replace(first=found.first + lacking * self.means, second=second, seen=None)

    def _constants(self, floor: Array, log_scale: float) -> Array:
        """log p(mean_k, k): (k,)."""
        k, d = self.shape
        return (
            self._beside_gaussian()
            + self.covariance.log_det_factors(d)
            - 0.5 * d * LOG_2PI
            - self.covariance.smoothed(floor, k, d)
            + log_scale
        )

    def explained(self, sums: Moments, floor: Array, log_scale: float) -> float:
        """The sum of share times log p(x, k), of the rows and shares that these moments are of."""
        second = about(self.structure.order, sums, Origin(self.means)).second
        d = self.shape[1]
        values = second / d if self.structure.order is Order.trace else second
        return float(sums.own @ self._constants(floor, log_scale) - 0.5 * self.covariance.misfit(values, d).sum())

    @cached_property
    def product_error(self) -> float:
        """Of a log density by the product of features, at most, in roundings."""
        steepest = 1.0 if self.nu is None else 1.0 + self.shape[1] / float(self.nu.min())
        return steepest * self._evaluated.product_error(self.means)

    def path(self, dtype: np.dtype, before: str = "") -> str:
        """The cheapest way to evaluate this mixture that is accurate enough for rows of this type.

        The bound is computed from the model alone; the way of the pass before may go on until it is 4 times over.
        """
        allowed = {"float32": PRODUCT_FLOAT32_ERROR, "float64": PRODUCT_FLOAT64_ERROR}
        ways = ("float32", "float64") if dtype == np.float32 else ("float64",)
        for way in ways:
            slack = HYSTERESIS if way == before else 1.0
            if self.product_error * float(np.finfo(way).eps) / 2 <= allowed[way] * slack:
                return way
        return "centred"

    def log_prior(self, floor: Array) -> float:
        """The log density of the family's prior, less a constant."""
        return 0.0 if self.family.prior is None else self.family.prior.log_density(self, floor)

    def learn(self, sums: Moments, floor: Array) -> Mixture:
        """The M-step. A component that has lost all its rows keeps its mean and covariance, if no prior has others."""
        if self.family.prior is not None:
            return estimate(sums, self.family, floor, self.covariance)
        dead = ~(sums.own > 10 * np.finfo(np.float64).eps * sums.mass.sum())
        if dead.any():
            # Its own moments stand in for those of the rows that it no longer has.
            sums = self._standing_in(sums, dead, floor)
        dead &= ~self.family.rigid(len(dead))
        if dead.any():
            names = ", ".join(str(j) for j in np.flatnonzero(dead))
            warnings.warn(
                f"component {names} lost all its rows and was kept where it was; ask for fewer components "
                "or start from other means",
                CollapsedComponentWarning,
                stacklevel=2,
            )
        return estimate(sums, self.family, floor, self.covariance)

    def _standing_in(self, sums: Moments, which: Array, floor: Array) -> Moments:
        """With these components as they are here, less the smoothing that estimating adds, and of negligible mass."""
        mass, own = sums.mass.copy(), np.where(which, TINY**0.5, sums.own)
        mass[: len(own)] = own
        offset = self.means - sums.origin.about(self.means)
        first = np.where(which[:, None], own[:, None] * offset, sums.first)
        second = sums.second
        if self.structure.order is not Order.pooled:
            each = _unsmoothed(self, floor) + outer(offset, self.structure.order)
            second = np.where(beside(which, each), beside(own, each) * each, second)
        heft, tail = (
            np.where(which, theirs, known) if np.ndim(known) else known
            for theirs, known in zip(self._told(own), (sums.heft, sums.tail), strict=True)
        )
        return Moments(mass, first, second, sums.score, sums.certainty, sums.origin, heft, tail)

    def without(self, which: Array) -> Mixture:
        """The mixture of all other components."""
        left = np.delete(np.arange(self.shape[0]), which)
        weights = self.family.weights(np.maximum(np.delete(self.weights, which), TINY))
        covariance, family, freedom = self.covariance.of_components(left), self.family, self.family.freedom
        if freedom is not None:
            family = replace(family, freedom=freedom.of_components(left))
        nu = None if self.nu is None else self.nu[left]
        return replace(self, weights=weights, means=self.means[left], covariance=covariance, family=family, nu=nu)

    def restarted(self, which: Array) -> Mixture:
        """With halves of the components of most weight in the place of these, apart along the longest axis."""
        k = self.shape[0]
        parents, weights, means = np.arange(k), self.weights.copy(), self.means.copy()
        dense, weights[which] = self.covariance.dense(*self.shape), 0.0
        for j in which:
            i = int(weights[:k].argmax())
            weights[[i, j]], parents[j] = weights[i] / 2, parents[i]
            spread, axes = np.linalg.eigh(dense[parents[i]])
            away = 0.5 * np.sqrt(spread[-1]) * axes[:, -1]
            means[i], means[j] = means[i] - away, means[i] + away
        covariance, freedom = self.covariance.of_components(parents), self.family.freedom
        nu = None if freedom is None or self.nu is None else freedom.known(self.nu[parents])
        weights = self.family.weights(weights)
        return replace(self, weights=weights, means=means, covariance=covariance, nu=nu).held()

    def held(self) -> Mixture:
        """With the means and covariances that are given where they stay."""
        held = self.family.held
        if held is None:
            return self
        return replace(self, means=held.means_of(self.means), covariance=held.covariance_of(self.covariance))

    def rescaled(self, scale: Array, means: Array) -> Mixture:
        """The same mixture of x * scale, with these means."""
        return replace(self, means=means, covariance=self.covariance.rescaled(scale))

    def moments(self, floor: Array, origin: Origin) -> Moments:
        """Of a unit of mass of rows that would give this mixture again, smoothed by `floor`."""
        order, offset = self.structure.order, self.means - origin.about(self.means)
        each = outer(offset, order)
        own = _unsmoothed(self, floor)
        weights = self.own_weights
        heft, tail = self._told(weights)
        if order is Order.pooled:
            own = own if self.family.noise is None else weights.sum() * own
            second = own + of_each(weights, each, order)
        else:
            second = of_each(weights, own + each, order)
        return Moments(self.weights, weights[:, None] * offset, second, np.nan, np.nan, origin, heft, tail)

    def _told(self, mass: Array) -> tuple[Array | float, Array | float]:
        """Heft and tail of so much mass of its own rows."""
        if self.nu is None:
            return 0.0, 0.0
        half = 0.5 * self.nu
        return mass, mass * (digamma(half) - np.log(half) - 1.0)

    def tail(self, found: Explained) -> Array | float:
        """The sum of E[log] - E of what a row counts for the moments, of which kernels know log E - E."""
        if self.nu is None:
            return 0.0
        half = 0.5 * (self.nu + self.shape[1])
        return found.tail + found.mass * (digamma(half) - np.log(half))

    def merged(self, floor: Array) -> Mixture:
        """The mixture of one component less that is nearest: two become one with their moments.

        Those whose union loses least of the log-likelihood of rows with known components (Runnalls 2007).

        Raises
        ------
        CollapsedComponentError
            Where rounding leaves no covariance.
        """
        sums, family = self.moments(floor, Origin()), replace(self.family, prior=None)
        order, pairs = self.structure.order, combinations(range(self.shape[0]), 2)
        nearest = (estimate(sums.united(i, j, order), family, floor, self.covariance) for i, j in pairs)
        return replace(max(nearest, key=Mixture.sharpness), family=self.family)

    def split(self, j: int, away: Array, floor: Array) -> Mixture:
        """The mixture of one component more: where this one is cut at its mean, with the moments of its halves.

        Their means lie so far (d,) to either side. The mixture keeps its mean and, where each component has a
        covariance of its own, its covariance.

        Raises
        ------
        CollapsedComponentError
            Where rounding leaves no covariance.
        """
        sums = self.moments(floor, Origin()).halved(j, away, self.structure.order)
        return estimate(sums, self.family, floor, self.covariance)

    def sharpness(self) -> float:
        """Mean log density of rows with known components, less a constant that all mixtures share."""
        return float((self.own_weights * self.covariance.log_det_factors(self.shape[1])).sum())

    def expected(self, truth: Mixture) -> float:
        """Mean log p(row, component) here, less a constant, of rows and components drawn from `truth`."""
        covariance, (_, d) = self.covariance, self.shape
        distance = (covariance.whitened(truth.means - self.means) ** 2).sum(axis=1)
        misfit = covariance.misfit(truth.covariance.values, d) + distance
        logs = self._log_weights()
        own = logs[: len(self.means)] + covariance.log_det_factors(d) - 0.5 * misfit
        noise = 0.0 if self.family.noise is None else truth.weights[-1] * logs[-1]
        return float(truth.own_weights @ own + noise)

    def coordinates(self) -> Array:
        """Numbers without bounds: log weights about their mean, means, coordinates of the covariances; (p,)."""
        logs = self._log_weights()
        return np.concatenate([logs - logs.mean(), self.means.ravel(), self.covariance.coordinates().ravel()])

    def at(self, coordinates: Array) -> Mixture:
        """The mixture of this shape with these coordinates.

        Raises
        ------
        CollapsedComponentError
            Where a covariance is singular, or beyond what numbers can hold.
        """
        (k, d), n = self.shape, len(self.weights)
        logs, means, covariances = np.split(coordinates, [n, n + k * d])
        weights = self.family.weights(np.exp(logs - logs.max()))
        covariance = self.covariance.at(covariances, d)
        # What lies between covariances of a structure need not be one.
        covariance = self.structure.nearest(covariance, np.maximum(weights[:k], TINY), d, self.covariance)
        return Mixture(weights, means.reshape(k, d), covariance, self.family, nu=self.nu).held()

    def in_metric(self, moves: Array) -> Array:
        """Moves of the coordinates (m, p) in units of the Fisher information of a row whose component is known.

        There EM's rate of convergence is a symmetric matrix (Dempster, Laird & Rubin 1977, section 3).
        """
        m, (k, d), n = len(moves), self.shape, len(self.weights)
        logs, means, covariances = np.split(moves, [n, n + k * d], axis=1)
        logs = (logs - (logs @ self.weights)[:, None]) * np.sqrt(self.weights)
        root = np.sqrt(self.own_weights)
        means = self.covariance.whitened(means.reshape(m, k, d)) * root[:, None]
        each = self.covariance.coordinates().shape
        covariances = self.covariance.in_metric(covariances.reshape(m, *each), d)
        if len(each) and each[0] == k:
            covariances = covariances * root[:, None]
        return np.concatenate([part.reshape(m, -1) for part in (logs, means, covariances)], axis=1)


def estimate(sums: Moments, family: Family, floor: Array, near: Covariance | None = None) -> Mixture:
    """The mixture of this family that fits moments and prior best; near these covariances, if there are several."""
    structure, prior, held, means = family.structure, family.prior, family.held, sums.means()
    mass, pull, scatter = sums.own, sums.pull, sums.scatter(structure.order)
    if held is not None:
        means = held.means_of(means)
        scatter = held.scatter_of(mass, about(structure.order, sums, Origin(means)).second)
    if prior is not None:
        away = means - prior.mean
        means, share = shrunk(means, mass, prior.mean, prior.shrinkage)
        scatter = scatter + prior.scatter(away, share, structure.order)
        mass = pull = mass + prior.mass(structure.order, *means.shape)
    scatter = smoothed(pull, scatter, floor, structure.order)
    covariance = structure.covariance.of(structure.values(mass, scatter, len(floor), near))
    nu = None if family.freedom is None else family.freedom.best(sums)
    return Mixture(family.weights(sums.mass), means, covariance, family, nu=nu).held()


def _unsmoothed(model: Mixture, floor: Array) -> Array:
    """Second moments about the means of rows that would give these covariances again."""
    values = model.covariance.values
    if model.structure.order is Order.trace:
        return len(floor) * (values - floor.mean())
    return values - (floor if model.structure.order is Order.diagonal else np.diag(floor))
