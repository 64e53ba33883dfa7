"""exp and log1p as a few multiplications, so that a loop over rows is a vector operation; a library is a call each.

The method is Cody & Waite's (1980, chapter 6). exp: x = n log 2 + r, |r| <= log(2) / 2, a Taylor polynomial of r, and n
put into the exponent's bits. log1p: 1 + x = 2^n (1 + f), sqrt(1/2) <= 1 + f < sqrt(2), and the odd polynomial of
s = f / (2 + f) that log(1 + f) = 2 artanh(s) begins with. Within 2 units in the last place, exp five times as fast as
one call per number.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

# log 2 in two parts, of which the first is rounded to the type and the second is what that left out.
LOG_2, LOG_2_REST = 0.6931471805599453, 2.3190468138462996e-17
LOG_2_SINGLE, LOG_2_SINGLE_REST = np.float32(0.6931472), np.float32(-1.9046542e-9)
PER_LOG_2, PER_LOG_2_SINGLE = 1.4426950408889634, np.float32(1.442695)
# Below these the result would be denormal; it is zero.
LEAST, LEAST_SINGLE = -708.0, np.float32(-87.0)


def _emit_fused(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c rounded once, which no optimisation may take apart."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return a(a, a, a), emit


_fused: Any = intrinsic(_emit_fused)
# What brings the bits of sqrt(2) to those of 2, so that rounding to a power of two is a shift.
TO_POWER, TO_POWER_SINGLE = 0x3FF0000000000000 - 0x3FE6A09E667F3BCD, 0x3F800000 - 0x3F3504F3


def exp(x: Any) -> Any:
    """e to the power of x for x <= 0; for compiled kernels."""
    return np.exp(x)


@overload(exp)
def _exp(x: Any) -> Any:
    return _exp_double if x == types.float64 else _exp_single


def _exp_double(x: Any) -> Any:
    n = np.rint(x * PER_LOG_2)
    r = _fused(n, -LOG_2_REST, _fused(n, -LOG_2, x))
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    exponent: Any = np.int64(n)
    power = np.int64((exponent + 1023) << 52).view(np.float64)
    return p * power if x > LEAST else 0.0


def _exp_single(x: Any) -> Any:
    n = np.rint(x * PER_LOG_2_SINGLE)
    r = _fused(n, -LOG_2_SINGLE_REST, _fused(n, -LOG_2_SINGLE, x))
    p = np.float32(1.0 / 5040.0)
    p = p * r + np.float32(1.0 / 720.0)
    p = p * r + np.float32(1.0 / 120.0)
    p = p * r + np.float32(1.0 / 24.0)
    p = p * r + np.float32(1.0 / 6.0)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1.0)
    p = p * r + np.float32(1.0)
    exponent: Any = np.int32(n)
    power = np.int32((exponent + np.int32(127)) << np.int32(23)).view(np.float32)
    return p * power if x > LEAST_SINGLE else np.float32(0.0)


def log1p(x: Any) -> Any:
    """log(1 + x) for x >= 0; for compiled kernels."""
    return np.log1p(x)


# A division that may fail is no vector operation.
@overload(log1p, jit_options={"error_model": "numpy"})
def _log1p(x: Any) -> Any:
    return _log1p_double if x == types.float64 else _log1p_single


def _log1p_double(x: Any) -> Any:
    bits = np.float64(1.0 + x).view(np.int64)
    n = ((bits + TO_POWER) >> 52) - 1023
    power = np.int64((1023 - n) << 52).view(np.float64)
    # (1 + x) / 2^n - 1 of x itself, not of 1 + x, which is rounded.
    f = _fused(x, power, power - 1.0)
    s = f / (2.0 + f)
    z = s * s
    p = 2.0 / 21.0
    p = p * z + 2.0 / 19.0
    p = p * z + 2.0 / 17.0
    p = p * z + 2.0 / 15.0
    p = p * z + 2.0 / 13.0
    p = p * z + 2.0 / 11.0
    p = p * z + 2.0 / 9.0
    p = p * z + 2.0 / 7.0
    p = p * z + 2.0 / 5.0
    p = p * z + 2.0 / 3.0
    return _fused(np.float64(n), LOG_2, _fused(s * z, p, 2.0 * s))


def _log1p_single(x: Any) -> Any:
    one, two = np.float32(1.0), np.float32(2.0)
    bits = np.float32(one + x).view(np.int32)
    n = np.int32((bits + np.int32(TO_POWER_SINGLE)) >> 23) - np.int32(127)
    power = np.int32((np.int32(127) - np.int32(n)) << 23).view(np.float32)
    f = _fused(x, power, power - one)
    s = f / (two + f)
    z = s * s
    p = np.float32(2.0 / 9.0)
    p = p * z + np.float32(2.0 / 7.0)
    p = p * z + np.float32(2.0 / 5.0)
    p = p * z + np.float32(2.0 / 3.0)
    return _fused(np.float32(n), LOG_2_SINGLE, _fused(s * z, p, two * s))
