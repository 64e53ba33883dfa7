"""What is given of a mixture and not estimated: parameters that are held, and the box that noise is in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daskmix.block import Array
from daskmix.covariance import Covariance, beside
from daskmix.moments import TINY


@dataclass(frozen=True)
class Held:
    """Parameters that the M-step leaves alone; NaN where it does not."""

    weights: Array  # (k,)
    means: Array  # (k, d)
    own: Array  # (k,) of which components the covariance is held
    covariance: Covariance | None  # what is not held counts for nothing

    def free(self) -> tuple[int, int, int]:
        """How many weights, means and covariances are estimated."""
        means = np.isnan(self.means).any(axis=1)
        return int(np.isnan(self.weights).sum()), int(means.sum()), int((~self.own).sum())

    def rigid(self) -> Array:
        """Of which components mean and covariance are held: (k,)."""
        return self.own & ~np.isnan(self.means).any(axis=1)

    def holds_weights(self) -> bool:
        return not np.isnan(self.weights).all()

    def weights_of(self, mass: Array) -> Array:
        """What is left goes to the others by their mass: (k,)."""
        free = np.isnan(self.weights)
        left = 1.0 - self.weights[~free].sum()
        own = np.where(free, mass, 0.0)
        return np.where(free, left * (own / max(own.sum(), TINY)), self.weights)

    def means_of(self, means: Array) -> Array:
        """(k, d)"""
        return np.where(np.isnan(self.means), means, self.means)

    def scatter_of(self, mass: Array, scatter: Array) -> Array:
        """With a scatter for covariances that are held which has one, whatever their rows: as the order has it."""
        if self.covariance is None:
            return scatter
        stand_in = self.covariance.scatter(np.maximum(mass, TINY**0.5), self.means.shape[1])
        return stand_in if self.own.all() else np.where(beside(self.own, stand_in), stand_in, scatter)

    def covariance_of(self, covariance: Covariance) -> Covariance:
        """With those that are held."""
        return covariance if self.covariance is None else covariance.with_components(self.own, self.covariance)


@dataclass(frozen=True)
class Noise:
    """Rows that belong to no component, uniform in a box (Banfield & Raftery 1993, section 4), in the units of rows.

    Their density is the same everywhere, also outside of the box, as mclust has it.
    """

    low: Array  # (d,)
    high: Array  # (d,)

    @property
    def log_density(self) -> float:
        return -float(np.log(self.high - self.low).sum())

    def of_features(self, features: Array) -> Noise:
        """The same of some features."""
        return Noise(self.low[features], self.high[features])
