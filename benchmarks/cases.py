"""What is fitted: a method, how many rows and features, how many clusters, which dtype."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np

SMALL, CHUNK = 4 << 20, 16 << 20  # bytes, at least and at most, of a chunk of rows in memory
# Mixtures of all contenders are smoothed by so much: the large cells have few rows for each component.
REG_COVAR = 1e-2


@dataclass(frozen=True)
class Method:
    """An iteration of K-means or of a mixture."""

    name: str
    flops: Callable[[int, int], int]  # (d, k) -> those of the matrix products, for one row
    covariance_type: str = ""  # of a mixture

    def __str__(self) -> str:
        return self.name


# Distances are one product; the sums over the rows of a cluster need none.
KMEANS = Method("K-means", lambda d, k: 2 * d * k)
# Densities and moments are a product each, with 1, x and the products of its elements: p = 1 + d + d (d + 1) / 2.
FULL = Method("mixture, full", lambda d, k: 4 * k * (1 + d + d * (d + 1) // 2), "full")
DIAG = Method("mixture, diag", lambda d, k: 4 * k * (2 * d + 1), "diag")


@dataclass(frozen=True)
class Case:
    """One fit."""

    method: Method
    rows: int
    features: int
    k: int
    dtype: str

    def __str__(self) -> str:
        return f"{self.rows:,} x {self.features} {self.dtype}, k={self.k}"

    @property
    def nbytes(self) -> int:
        return self.rows * self.features * np.dtype(self.dtype).itemsize

    @property
    def flops(self) -> int:
        """Of the matrix products of one iteration."""
        return self.rows * self.method.flops(self.features, self.k)

    def data(self) -> np.ndarray:
        """Rows (n, d) of clusters that overlap: an iteration must not find itself at a fixed point."""
        rng = np.random.default_rng(0)
        centres = (0.3 * rng.standard_normal((self.k, self.features))).astype(self.dtype)
        x = rng.standard_normal((self.rows, self.features), dtype=np.dtype(self.dtype))
        x += centres[rng.integers(self.k, size=self.rows)]
        return x

    def lazy(self, x: np.ndarray, threads: int) -> da.Array:
        """The rows as a Dask array of equal chunks, a whole number of them for every thread.

        Four, unless they were small: where a thread is held up by something else, others take over.
        """
        several = max(1, min(4, self.nbytes // (threads * SMALL)))
        chunks = threads * max(several, -(-self.nbytes // (threads * CHUNK)))
        return da.from_array(x, chunks=(-(-self.rows // chunks), self.features))

    def start(self, x: np.ndarray) -> dict[str, Any]:
        """An explicit start, as scikit-learn and daskmix both take it."""
        centres = x[np.random.default_rng(1).choice(self.rows, self.k, replace=False)]
        if not self.method.covariance_type:
            return {"n_clusters": self.k, "init": centres}
        shape = {"full": (self.k, self.features, self.features), "diag": (self.k, self.features)}
        one = np.eye(self.features) if self.method.covariance_type == "full" else np.ones(self.features)
        return {
            "n_components": self.k,
            "covariance_type": self.method.covariance_type,
            "weights_init": np.full(self.k, 1 / self.k, dtype=x.dtype),
            "means_init": centres,
            "precisions_init": np.broadcast_to(one, shape[self.method.covariance_type]).astype(x.dtype),
            "reg_covar": REG_COVAR,
        }
