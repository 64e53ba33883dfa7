"""How fast this machine multiplies matrices: what no method made of matrix products can beat."""

import time

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.settings import Settings

SIDE = 3072
TIMES = 7


def product_flops(dtype: str, settings: Settings) -> float:
    """Flops per second of the fastest of some products of large square matrices, on as many threads as all others."""
    side = max(256, settings.rows(SIDE))
    a, b = np.random.default_rng(0).standard_normal((2, side, side)).astype(dtype)
    out = np.empty_like(a)
    seconds = []
    with threadpool_limits(settings.threads):
        for _ in range(TIMES):
            began = time.perf_counter()
            np.matmul(a, b, out=out)
            seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)
