"""How the kernels are compiled."""

from collections.abc import Callable
from typing import Any

import numba

# Sums may be reordered for vectors; infinities and NaN keep their meaning.
FASTMATH = {"contract", "reassoc", "nsz"}
EXACT = FASTMATH - {"reassoc"}


def jit(function: Callable[..., Any], fastmath: set[str] = FASTMATH) -> Any:
    # To divide by zero gives what it gives in NumPy, and is no exception.
    options: dict[str, Any] = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write a cache: compile once per process
        return numba.njit(**options)(function)
