"""Where an array lives: the functions for it, and the one door back to the host."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any  # an array of NumPy's interface: numpy.ndarray, or CuPy's


def namespace(a: Array) -> Any:
    """The module whose functions take this array: numpy, or cupy."""
    try:
        return a.__array_namespace__()
    except AttributeError:  # CuPy's arrays have no such method (as of version 14)
        import cupy

        return cupy.get_array_module(a)


def to_host(a: Array) -> Array:
    """The array for NumPy. It waits for the device, so kernels call it for what they answer, and when all is done."""
    xp = namespace(a)
    return a if xp is np else xp.asnumpy(a)


def alongside(a: Array, b: Array) -> Array:
    """The array `a` where `b` lives."""
    xp = namespace(b)
    return to_host(a) if xp is np else xp.asarray(a)
