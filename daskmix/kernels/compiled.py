"""The kernels compiled by numba: one call for many rows, without the interpreter lock, tile by tile."""

import numpy as np

from daskmix.block import Array
from daskmix.kernels import Densities, Explained, Frame, Observed, explaining, observing
from daskmix.kernels.assigning import assign, assign_observed
from daskmix.kernels.pruned import assign as assign_again
from daskmix.kernels.reference import distance, distance_observed, normalise

__all__ = [
    "assign", "assign_again", "assign_observed", "complete", "distance", "distance_observed", "explain", "in_tiles",
    "joint",
]  # fmt: skip

in_tiles = True


def explain(
    x: Array, w: Array | None, frame: Frame, densities: Densities, pick: Array | None = None
) -> list[Explained]:
    if isinstance(densities, Observed):
        return [observing.explain(x, w, frame, densities, pick)]
    return explaining.explain(x, w, frame, densities, pick)


def joint(x: Array, frame: Frame, densities: Densities) -> Array:
    if isinstance(densities, Observed):
        return observing.joint(x, frame, densities)
    return explaining.joint(x, frame, densities)


def complete(x: Array, frame: Frame, densities: Observed) -> Array:
    share = normalise(joint(x, frame, densities))[0]
    return np.where(np.isnan(x), frame.leave(observing.expected(x, share, frame, densities)), x)
