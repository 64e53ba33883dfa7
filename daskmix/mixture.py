"""Gaussian mixtures, and the pass that teaches them: E-step and M-step on one page."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, digamma, gammaln

from daskmix.arrays import alongside, namespace, to_host
from daskmix.block import Array, Block
from daskmix.covariance import Covariance, FullCovariance
from daskmix.errors import CollapsedComponentWarning, InputError
from daskmix.given import Held, Noise
from daskmix.kernels import (
    LOG_2PI,
    Centred,
    Densities,
    Explained,
    Features,
    Frame,
    Kernels,
    Observed,
    Order,
    Product,
    Tails,
    joined,
)
from daskmix.kernels.reference import enter, moments
from daskmix.reduction import FEW_BYTES, Linear, Reduction, Sums
from daskmix.sampling import uniform
from daskmix.structures import Structure, smoothed

TINY = float(np.finfo(np.float64).tiny)
PRODUCT_FLOAT32_ERROR = 1e-3
PRODUCT_FLOAT64_ERROR = 1e-8
HYSTERESIS = 4.0
LEAST_NU, MOST_NU = 0.1, 1000.0  # that are estimated: beyond, nothing changes but by rounding


@dataclass(frozen=True)
class Conjugate:
    """A prior of means and covariances, normal and inverse Wishart (Fraley & Raftery 2007): it counts as some rows.

    Where all components share one covariance, so does the prior.
    """

    shrinkage: float  # rows that the mean counts for
    mean: Array  # (d,)
    freedom: float
    scale: Array  # spherical (), diagonal (d,), full and shared (d, d)
    shared: bool

    def mass(self, order: Order, k: int, d: int) -> Array:
        """Rows that it counts for in each covariance: (k,)."""
        own, mean = {Order.trace: ((self.freedom + 2) / d, 1.0), Order.diagonal: (self.freedom + 2, 1.0)}.get(
            order, (self.freedom + d + 1, 1.0)
        )
        return np.full(k, mean + (own / k if self.shared else own))

    def scatter(self, away: Array, share: Array, order: Order) -> Array:
        """Of these rows, and of means that are so far from its own (k, d), with this share each."""
        k = len(away)
        own = np.repeat(self.scale[None] / (k if self.shared else 1), k, axis=0)
        if order is Order.pooled:
            own = own.sum(axis=0)
        return own + of_each(share, outer(away, order), order)

    def entered(self, shift: Array, scale: Array) -> Conjugate:
        """The same of (x - shift) * scale."""
        return replace(self, mean=(self.mean - shift) * scale, scale=in_units(self.scale, scale))

    def log_density(self, model: Mixture, floor: Array) -> float:
        """Of this mixture, less a constant; its rows are smoothed as all are."""
        order, (k, d) = model.structure.order, model.shape
        mass = self.mass(order, k, d)
        scatter = self.scatter(model.means - self.mean, np.full(k, self.shrinkage), order)
        values = smoothed(mass, scatter, floor, order)
        misfit = model.covariance.misfit(values / d if order is Order.trace else values, d).sum()
        return float((mass * model.covariance.log_det_factors(d)).sum() - 0.5 * misfit)


@dataclass(frozen=True)
class Freedom:
    """Degrees of freedom of components that are Student's t (Peel & McLachlan 2000)."""

    nu: Array  # (k,) given, or where the estimate starts
    estimated: bool = False

    def known(self, nu: Array | None) -> Array:
        """Where to start if another mixture has these."""
        return nu if self.estimated and nu is not None else self.nu

    def best(self, sums: Moments) -> Array:
        """That explain these moments best: (k,)."""
        # Moments that no mixture of t gave, as of a start, say nothing of it.
        if not (self.estimated and np.ndim(sums.tail)):
            return self.nu
        return np.array([likeliest_nu(own) for own in sums.tail / sums.own])

    def of_components(self, numbers: Array) -> Freedom:
        return replace(self, nu=self.nu[numbers])


def likeliest_nu(tail: float) -> float:
    """Where log(nu / 2) - digamma(nu / 2) + 1 + tail, which falls with nu, is zero; within bounds."""

    def slope(log_nu: float) -> float:
        half = 0.5 * np.exp(log_nu)
        return float(np.log(half) - digamma(half) + 1.0 + tail)

    low, high = np.log([LEAST_NU, MOST_NU])
    if slope(low) <= 0:
        return LEAST_NU
    return MOST_NU if slope(high) >= 0 else float(np.exp(brentq(slope, low, high)))


@dataclass(frozen=True)
class Family:
    """The mixtures among which the M-step chooses the best."""

    structure: Structure
    equal_weights: bool = False  # whether all components have the same
    prior: Conjugate | None = None  # in the coordinates of the mixture
    held: Held | None = None  # in these, too
    noise: Noise | None = None  # has the last of the weights, and of the mass; in the units of rows
    freedom: Freedom | None = None  # where components are not Gaussian but Student's t

    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of one with k components in d features."""
        weights, means, covariances = (k, k, k) if self.held is None else self.held.free()
        own = self.structure.n_parameters(covariances, d) if covariances else 0
        # mclust counts the weight of the noise, and its density.
        own += 0 if self.noise is None else 2
        own += k if self.freedom is not None and self.freedom.estimated else 0
        return (0 if self.equal_weights else max(weights - 1, 0)) + means * d + own

    def weights(self, mass: Array) -> Array:
        """The best for this mass of the components, and of the noise: (k,) or (k + 1,)."""
        if self.held is not None:
            return self.held.weights_of(mass)
        if not self.equal_weights:
            return mass / mass.sum()
        if self.noise is None:
            return np.full(len(mass), 1.0 / len(mass))
        return np.append(np.full(len(mass) - 1, mass[:-1].mean()), mass[-1]) / mass.sum()

    def rigid(self, k: int) -> Array:
        """Which components are given, so that they need no rows: (k,)."""
        return np.zeros(k, dtype=bool) if self.held is None else self.held.rigid()


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

    @property
    def own_weights(self) -> Array:
        """Of the components alone: (k,)."""
        return self.weights[: len(self.means)]

    def n_parameters(self) -> int:
        return self.family.n_parameters(*self.shape)

    def densities(self, path: str, floor: Array, log_scale: float) -> Densities:
        """What the kernels need for log p(x, k), on data smoothed by `floor` and measured in units of the frame."""
        tails, covariance = self._tails(log_scale), self.covariance
        # Tails have constants of their own, that come after them.
        smoothing = covariance.smoothed(floor, *self.shape)
        constants = self._constants(floor, log_scale) if tails is None else -smoothing
        if self.order is not covariance.order:
            each = (len(self.means), 1, 1)
            covariance = FullCovariance(np.tile(covariance.values, each), np.tile(covariance.factors, each))
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
        second = _about(self.structure.order, sums, Origin(self.means)).second
        d = self.shape[1]
        values = second / d if self.structure.order is Order.trace else second
        return float(sums.own @ self._constants(floor, log_scale) - 0.5 * self.covariance.misfit(values, d).sum())

    @cached_property
    def product_error(self) -> float:
        """Of a log density by the product of features, at most, in roundings."""
        steepest = 1.0 if self.nu is None else 1.0 + self.shape[1] / float(self.nu.min())
        return steepest * self.covariance.product_error(self.means)

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
            return sums.estimate(self.family, floor, self.covariance)
        dead = ~(sums.own > 10 * np.finfo(np.float64).eps * max(1.0, sums.mass.sum()))
        if dead.any():
            # Its own moments stand in for those of the rows that it no longer has.
            sums = sums.with_components(dead, self, floor)
        dead &= ~self.family.rigid(len(dead))
        if dead.any():
            names = ", ".join(str(j) for j in np.flatnonzero(dead))
            warnings.warn(
                f"component {names} lost all its rows and was kept where it was; ask for fewer components "
                "or start from other means",
                CollapsedComponentWarning,
                stacklevel=2,
            )
        return sums.estimate(self.family, floor, self.covariance)

    def without(self, which: Array) -> Mixture:
        """The mixture of all other components."""
        left = np.delete(np.arange(self.shape[0]), which)
        weights = self.family.weights(np.maximum(self.weights[left], TINY))
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
        nearest = (sums.united(i, j, order).estimate(family, floor, self.covariance) for i, j in pairs)
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
        return sums.estimate(self.family, floor, self.covariance)

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

    def with_components(self, which: Array, model: Mixture, floor: Array) -> Moments:
        """These components as the model has them, less the smoothing that estimating adds, with a negligible mass."""
        mass, own = self.mass.copy(), np.where(which, TINY**0.5, self.own)
        mass[: len(own)] = own
        offset = model.means - self.origin.about(model.means)
        first = np.where(which[:, None], own[:, None] * offset, self.first)
        second = self.second
        if model.structure.order is not Order.pooled:
            each = _unsmoothed(model, floor) + outer(offset, model.structure.order)
            axes = (slice(None),) + (None,) * (each.ndim - 1)
            second = np.where(which[axes], own[axes] * each, second)
        heft, tail = (
            np.where(which, theirs, known) if np.ndim(known) else known
            for theirs, known in zip(model._told(own), (self.heft, self.tail), strict=True)
        )
        return Moments(mass, first, second, self.score, self.certainty, self.origin, heft, tail)

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

    def estimate(self, family: Family, floor: Array, near: Covariance | None = None) -> Mixture:
        """The mixture of this family that fits moments and prior best; near these covariances, if there are several."""
        structure, prior, held, means = family.structure, family.prior, family.held, self.means()
        mass, pull, scatter = self.own, self.pull, self.scatter(structure.order)
        if held is not None:
            means = held.means_of(means)
            scatter = held.scatter_of(mass, _about(structure.order, self, Origin(means)).second)
        if prior is not None:
            away = means - prior.mean
            means, share = shrunk(means, mass, prior.mean, prior.shrinkage)
            scatter = scatter + prior.scatter(away, share, structure.order)
            mass = pull = mass + prior.mass(structure.order, *means.shape)
        scatter = smoothed(pull, scatter, floor, structure.order)
        covariance = structure.covariance.of(structure.values(mass, scatter, len(floor), near))
        nu = None if family.freedom is None else family.freedom.best(self)
        return Mixture(family.weights(self.mass), means, covariance, family, nu=nu).held()

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
    here = _about(order, here, rows.origin)
    mass, first, second, heft, tail = (
        getattr(rows, name) / total + (getattr(here, name) - getattr(there, name)) / size for name in EACH
    )
    return Moments(mass, first, second, np.nan, np.nan, rows.origin, heft, tail)


def _about(order: Order, moments: Moments, origin: Origin) -> Moments:
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


def _unsmoothed(model: Mixture, floor: Array) -> Array:
    """Second moments about the means of rows that would give these covariances again."""
    values = model.covariance.values
    if model.structure.order is Order.trace:
        return len(floor) * (values - floor.mean())
    return values - (floor if model.structure.order is Order.diagonal else np.diag(floor))


def shrunk(means: Array, mass: Array, towards: Array, rows: float) -> tuple[Array, Array]:
    """Means (k, d) of this mass and so many rows at a point, and what the way there weighs in the scatter: (k,)."""
    counts = rows + mass
    return (rows * towards + mass[:, None] * means) / counts[:, None], rows * mass / counts


def of_each(share: Array, values: Array, order: Order) -> Array:
    """This share of each component's values, or, pooled, the sum of these."""
    if order is Order.pooled:
        return np.einsum("k,kde->de", share, values)
    return share[(slice(None),) + (None,) * (values.ndim - 1)] * values


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


@dataclass(frozen=True)
class Origin:
    """What moments are taken about: the frame's origin, or the means that a pass started from."""

    means: Array | None = None  # (k, d)

    def about(self, like: Array) -> Array:
        return np.zeros_like(like) if self.means is None else self.means

    def __add__(self, other: Origin) -> Origin:
        return self  # the same question has the same origin


@dataclass(frozen=True)
class Sharing:
    """How rows are shared out among components, given log p(x, k)."""

    temperature: float = 1.0  # responsibilities are those of log p(x, k) / temperature
    hard: bool = False  # each row to its likeliest component alone
    seed: int | None = None  # each row to one component alone, drawn by the responsibilities

    def pick(self, block: Block) -> Array | None:
        """What decides to which one component each row goes, as kernels take it; None where all are shared out."""
        xp, pick = namespace(block.x), None
        if self.hard:
            pick = xp.zeros(len(block.x))
        elif self.seed is not None:
            pick = uniform(self.seed, block.index)
        if block.known is None:
            return pick
        return xp.where(block.known >= 0, -1.0 - block.known, np.nan if pick is None else pick)

    def again(self, times: int) -> Sharing:
        """The same with other draws."""
        return self if self.seed is None else replace(self, seed=self.seed + times)


SOFT = Sharing()


@dataclass(frozen=True)
class Explain(Linear[Moments]):
    """Share each row out among the components that explain it (E-step).

    The score is what the M-step on these shares never lowers: the log-likelihood; at a temperature T the free energy
    T sum log sum exp(log p(x, k) / T) (Ueda & Nakano 1998); of rows given to the likeliest component the log-likelihood
    of both (Celeux & Govaert 1992).
    """

    mixture: Mixture
    frame: Frame
    path: str  # "float32" | "float64": the product in this type; "centred"
    floor: Array  # (d,) smoothing of the squared features, in the frame
    sharing: Sharing = SOFT

    # All chunks that a process computes on share the question.
    @cached_property
    def _densities(self) -> Densities:
        return self._heated(self.mixture.densities(self.path, self.floor, float(np.log(self.frame.scale).sum())))

    @cached_property
    def _densities_observed(self) -> Densities:
        return self._heated(self.mixture.densities_observed(self.path, self.floor, np.log(self.frame.scale)))

    def _heated(self, densities: Densities) -> Densities:
        temperature = self.sharing.temperature
        return densities if temperature == 1.0 else densities.heated(temperature)

    def _origin(self) -> Origin:
        return Origin(self.mixture.means if self.path == "centred" else None)

    def zero(self) -> Moments:
        k, d = self.mixture.shape
        nothing = _no_moments(k, d, self.mixture.structure.order, self._origin())
        return replace(nothing, mass=np.zeros(len(self.mixture.weights)))

    def features(self) -> Features | None:
        # Centred rows, and those whitened by a shared covariance, are each mixture's own.
        own = self.path == "centred" or self.mixture.order is Order.pooled
        # What tails make of the product is, too.
        own = own or self.mixture.nu is not None
        # Each row to one component: which one is each mixture's own, too.
        own = own or self.sharing.hard or self.sharing.seed is not None
        return None if own else Features(self.frame, self.mixture.order, self.path)

    @classmethod
    def map_all(cls, questions: Sequence[Explain], block: Block, ops: Kernels) -> list[Moments]:
        asked = [question._densities_observed if block.gaps else question._densities for question in questions]
        frame, pick = questions[0].frame, questions[0].sharing.pick(block)
        found = [own for model in joined(asked) for own in ops.explain(block.x, block.w, frame, model, pick)]
        each = zip(questions, found, asked, strict=True)
        return [question._told(own, isinstance(model, Product)) for question, own, model in each]

    def _told(self, found: Explained, by_product: bool) -> Moments:
        score = self.sharing.temperature * found.score + (found.certainty if self.sharing.hard else 0.0)
        mass, first, second, *_ = self.mixture.completed(found, self.floor)
        if self.mixture.family.noise is not None:
            first, second = first[:-1], second[:-1]
            if self.mixture.order is not self.mixture.structure.order:
                second = second.sum(axis=0)
        origin = Origin(None if by_product else self.mixture.means)
        tail = self.mixture.tail(found)
        sums = Moments(mass, first, second, score, found.certainty, origin, found.heft, tail)
        # Rows with gaps may go another way than those without.
        same = by_product == (self.path != "centred")
        return sums if same else _about(self.mixture.structure.order, sums, self._origin())

    def own_bytes(self, ops: Kernels) -> int:
        return 0 if ops.in_tiles else (16 if self.mixture.nu is None else 40) * self.mixture.shape[0]

    def row_bytes(self, ops: Kernels) -> int:
        if ops.in_tiles:
            return FEW_BYTES
        d = self.mixture.shape[1]
        return self.own_bytes(ops) + 8 * (d + (d * (d + 1) // 2 if self.mixture.order is Order.full else d))


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
    # (d,) in the frame, for values that are missing: the first E-step will know better
    mean: Array
    variance: Array

    def zero(self) -> Moments:
        return _no_moments(self.k, len(self.frame.shift), self.order, Origin())

    def map(self, block: Block, ops: Kernels) -> Moments:
        d = len(self.frame.shift)
        y, share = enter(block.x[:, :d], self.frame), block.x[:, d:].astype(np.float64)
        absent = namespace(y).isnan(y) if block.gaps else None
        if absent is not None:
            y = namespace(y).where(absent, alongside(self.mean.astype(y.dtype), y), y)
        if self.labelled:
            share = (share == namespace(share).arange(self.k)).astype(np.float64)
        if absent is not None:
            share = namespace(share).where(absent.all(axis=1)[:, None] | namespace(share).isnan(share), 0.0, share)
        if block.w is not None:
            share *= block.w[:, None]
        mass, first, second = map(to_host, moments(y, share, self.order))
        if absent is not None:
            lacking = to_host(share.T @ absent.astype(np.float64))
            second = second + on_diagonal(lacking * self.variance, self.order)
        return Moments(mass, first, second, 0.0, 0.0, origin=Origin())

    def row_bytes(self, ops: Kernels) -> int:
        return 8 * (3 * len(self.frame.shift) + 2 * self.k)
