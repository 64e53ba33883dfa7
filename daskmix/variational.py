"""Bayesian mixtures: the conjugate prior, and the posterior of its kind that explains the rows best.

Variational inference (Bishop 2006, section 10.2; Blei & Jordan 2006 for the Dirichlet process) learns from mass, means
and scatter alone, and its E-step is that of a mixture whose log densities have a surplus.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import betaln, digamma, gammaln

from daskmix.block import Array
from daskmix.covariance import Covariance, beside
from daskmix.family import Family
from daskmix.kernels import Order
from daskmix.mixture import Mixture
from daskmix.moments import TINY, Moments, in_units, of_each, outer, shrunk
from daskmix.structures import smoothed


@dataclass(frozen=True)
class Prior:
    """Dirichlet weights, or those of a Dirichlet process; Gaussian means and Wishart precisions, given the weights."""

    concentration: float
    process: bool  # whether weights are broken off a stick, so that few components may take all
    mean_precision: float  # rows that the mean counts for
    mean: Array  # (d,)
    freedom: float  # rows that the scatter counts for, more than d - 1
    scatter: Array  # (), (d,) or (d, d), as the order has it: freedom times a covariance

    def entered(self, shift: Array, scale: Array) -> Prior:
        """The same of (x - shift) * scale."""
        return replace(self, mean=(self.mean - shift) * scale, scatter=in_units(self.scatter, scale))

    def posterior(self, sums: Moments, family: Family, floor: Array) -> Posterior:
        """The best of its kind for these moments.

        Raises
        ------
        CollapsedComponentError
            Where a covariance is singular.
        """
        order, mass = family.structure.order, sums.mass
        (k, d), found = sums.first.shape, sums.means()
        means, share = shrunk(found, mass, self.mean, self.mean_precision)
        away = of_each(share, outer(found - self.mean, order), order)
        scatter = smoothed(mass, sums.scatter(order), floor, order) + away
        # All components share one covariance as if each had the mean of their scatters (scikit-learn's choice).
        freedom = self.freedom + (np.full(k, mass.sum() / k) if order is Order.pooled else mass)
        if order is Order.pooled:
            values = (self.scatter + scatter / k) / freedom[0]
        else:
            own = self.scatter + (scatter / d if order is Order.trace else scatter)
            values = own / beside(freedom, scatter)
        counts = self.mean_precision + mass
        return Posterior(
            self._concentrations(mass), counts, means, freedom, family.structure.covariance.of(values), family
        )

    def _concentrations(self, mass: Array) -> Array:
        if not self.process:
            return self.concentration + mass
        later = np.append(np.cumsum(mass[:0:-1])[::-1], 0.0)
        return np.stack([1.0 + mass, self.concentration + later])


@dataclass(frozen=True)
class Posterior:
    """Of weights, means and precisions of k components in d features, independent of each other."""

    concentration: Array  # (k,) of a Dirichlet; (2, k) of what is broken off a stick
    mean_precision: Array  # (k,)
    means: Array  # (k, d)
    freedom: Array  # (k,)
    covariance: Covariance  # the inverse of the mean precisions
    family: Family

    def weights(self) -> Array:
        """Their means, of a stick's pieces as shares of all: (k,)."""
        if self.concentration.ndim == 1:
            return self.concentration / self.concentration.sum()
        taken, left = self.concentration / self.concentration.sum(axis=0)
        pieces = taken * np.append(1.0, np.cumprod(left[:-1]))
        return pieces / pieces.sum()

    def _log_weights(self) -> Array:
        """Means of their logarithms: (k,)."""
        if self.concentration.ndim == 1:
            return digamma(self.concentration) - digamma(self.concentration.sum())
        taken, left = digamma(self.concentration) - digamma(self.concentration.sum(axis=0))
        return taken + np.append(0.0, np.cumsum(left[:-1]))

    @cached_property
    def mixture(self) -> Mixture:
        """The one whose log p(x, k) is the mean of log p(x, k) over the posterior."""
        d = self.means.shape[1]
        log_determinants = digamma(self._halves()).sum(axis=0) + d * np.log(2.0 / self.freedom)
        surplus = self._log_weights() + 0.5 * (log_determinants - d / self.mean_precision)
        weights = self.weights()
        surplus = surplus - np.log(np.maximum(weights, TINY))
        return Mixture(weights, self.means, self.covariance, self.family, surplus)

    def bound(self, entropy: float, log_scale: float) -> float:
        """The lower bound of the log evidence, less what does not change, as scikit-learn has it.

        `entropy` is that of the responsibilities that this posterior is of, `log_scale` the log of units per unit of X.
        """
        d = self.means.shape[1]
        half = self.covariance.log_det_factors(d) + log_scale - 0.5 * d * np.log(self.freedom)
        wishart = -(self.freedom * (half + 0.5 * d * np.log(2.0)) + gammaln(self._halves()).sum(axis=0)).sum()
        return float(entropy - wishart - self._log_norm() - 0.5 * d * np.log(self.mean_precision).sum())

    def _log_norm(self) -> float:
        if self.concentration.ndim == 1:
            return float(gammaln(self.concentration.sum()) - gammaln(self.concentration).sum())
        return float(-betaln(*self.concentration).sum())

    def _halves(self) -> Array:
        """Half of the degrees of freedom that are left for each feature: (d, k)."""
        return 0.5 * (self.freedom - np.arange(self.means.shape[1])[:, None])

    def rescaled(self, scale: Array, means: Array) -> Posterior:
        """The same of x * scale, with these means."""
        return replace(self, means=means, covariance=self.covariance.rescaled(scale))
