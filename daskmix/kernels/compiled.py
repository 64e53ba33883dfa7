"""The kernels compiled by numba: one call for many rows, without the interpreter lock, tile by tile."""

from daskmix.kernels.assigning import assign
from daskmix.kernels.explaining import explain, joint
from daskmix.kernels.pruned import assign as assign_again
from daskmix.kernels.reference import distance

__all__ = ["assign", "assign_again", "distance", "explain", "in_tiles", "joint"]

in_tiles = True
