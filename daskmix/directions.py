"""Clusters of directions: spherical K-means (Dhillon & Modha 2001)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daskmix.arrays import namespace
from daskmix.block import Array, working_dtype
from daskmix.centroids import Assignment, Centroids


def unit(x: Array) -> Array:
    """Rows of length one, (n, d); a row of zeros has no direction and counts as missing."""
    xp = namespace(x)
    x = x.astype(working_dtype(x.dtype), copy=False)
    largest = xp.abs(x).max(axis=1)
    # A row that holds NaN or infinity is left for others to refuse.
    usable = xp.isfinite(largest)
    size = xp.where(usable & (largest > 0), largest, x.dtype.type(1))[:, None]
    scaled = x / size
    length = xp.sqrt((scaled * scaled).sum(axis=1))
    length = xp.where(largest > 0, length, x.dtype.type(np.nan))
    return xp.where(usable[:, None], scaled / xp.where(usable, length, x.dtype.type(1))[:, None], x)


@dataclass(frozen=True)
class Directions(Centroids):
    """k centres of length one: the nearest is that with the largest cosine, for |x - c|^2 = 2 (1 - cos)."""

    def at(self, coordinates: Array) -> Directions:
        return Directions(self._unit(coordinates.reshape(self.centres.shape)))

    def learn(self, sums: Assignment) -> Directions:
        """Every centre in the direction of the mean of its rows; where that is nowhere, as it was."""
        return Directions(self._unit(super().learn(sums).centres))

    def _unit(self, centres: Array) -> Array:
        found = unit(centres)
        return np.where(np.isnan(found), self.centres, found)
