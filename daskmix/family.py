"""The mixtures among which the M-step chooses the best: their structure, prior, and what else is said of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma

from daskmix.block import Array
from daskmix.given import Held, Noise
from daskmix.kernels import Order
from daskmix.moments import Moments, in_units, of_each, outer
from daskmix.structures import Structure, smoothed

if TYPE_CHECKING:
    from daskmix.mixture import Mixture

LEAST_NU, MOST_NU = 0.1, 1000.0  # that are estimated; draws with fewer overflow, with more only rounding changes


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
        if self.held is not None and self.held.holds_weights():
            return self.held.weights_of(mass)
        if not self.equal_weights:
            return mass / mass.sum()
        if self.noise is None:
            return np.full(len(mass), 1.0 / len(mass))
        return np.append(np.full(len(mass) - 1, mass[:-1].mean()), mass[-1]) / mass.sum()

    def rigid(self, k: int) -> Array:
        """Which components are given, so that they need no rows: (k,)."""
        return np.zeros(k, dtype=bool) if self.held is None else self.held.rigid()
