"""What passes are counted on: generated sets, rows in the order of their component, and sets of scikit-learn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.decomposition import PCA

from daskmix.algorithms.seeding import plus_plus
from daskmix.block import Array
from daskmix.estimators.mixture_start import STRUCTURES
from daskmix.family import Family
from daskmix.kernels.reference import moments, nearest
from daskmix.mixture import Mixture, estimate
from daskmix.moments import Moments, Origin
from daskmix.structures import Structure

FLOOR = 1e-6
START_ROWS = 1500
SOFT = 0.9  # of a row's share goes to its nearest centre, the rest to all


@dataclass(frozen=True)
class Problem:
    """Rows, and the mixture that is fitted to them."""

    name: str
    covariance: str
    k: int
    make: Callable[[int], Array]  # so many rows, as far as there are so many; always the same
    rows: int  # for runs without a sample

    def __str__(self) -> str:
        return f"{self.name}, {self.covariance}, k={self.k}"

    @property
    def structure(self) -> Structure:
        return STRUCTURES[self.covariance]

    def data(self, rows: int = 0) -> Array:
        """Standardised: (n, d)."""
        x = self.make(rows or self.rows)
        return (x - x.mean(axis=0)) / x.std(axis=0)

    def start(self, x: Array, seed: int) -> Mixture:
        """k-means++ and three steps of Lloyd on some rows, then soft shares of all: a raw start."""
        rng = np.random.default_rng([1000, seed])
        some = x[rng.choice(len(x), min(len(x), START_ROWS), replace=False)]
        centres = plus_plus(some, np.ones(len(some)), self.k, rng)
        for _ in range(3):
            label = nearest(some, centres)[0]
            own = [some[label == j] for j in range(self.k)]
            centres = np.stack(
                [c if len(rows) == 0 else rows.mean(axis=0) for c, rows in zip(centres, own, strict=True)]
            )
        hard = nearest(x, centres)[0][:, None] == np.arange(self.k)
        share = SOFT * hard + (1 - SOFT) / self.k
        sums = Moments(*moments(x, share, self.structure.order), 0.0, 0.0, Origin())
        return estimate(sums, Family(self.structure), np.full(x.shape[1], FLOOR))


def clusters(
    d: int, k: int, apart: float, seed: int, weights: Any = None, turned: bool = False
) -> Callable[[int], Array]:
    """Gaussian clusters at random, one after the other."""

    def make(n: int) -> Array:
        rng = np.random.default_rng(seed)
        centres = apart * rng.standard_normal((k, d))
        roots = rng.standard_normal((k, d, d)) if turned else np.broadcast_to(np.eye(d), (k, d, d))
        return _around(centres, roots, n, weights, rng)

    return make


def corner(d: int, apart: float, seed: int) -> Callable[[int], Array]:
    """Round Gaussian clusters at the origin and on each axis, one after the other."""

    def make(n: int) -> Array:
        centres = apart * np.vstack([np.eye(d), np.zeros(d)])
        return _around(centres, np.broadcast_to(np.eye(d), (d + 1, d, d)), n, None, np.random.default_rng(seed))

    return make


def _around(centres: Array, roots: Array, n: int, weights: Any, rng: np.random.Generator) -> Array:
    k, d = centres.shape
    counts = np.full(k, n // k) if weights is None else (n * np.asarray(weights)).astype(int)
    counts[0] += n - counts.sum()
    parts = [c + rng.standard_normal((m, d)) @ r for c, m, r in zip(centres, counts, roots, strict=True)]
    return np.concatenate(parts)


def loaded(load: Callable[..., Any], components: int = 0) -> Callable[[int], Array]:
    """A set of scikit-learn, as it is or its first principal components."""

    def make(n: int) -> Array:
        x = load(return_X_y=True)[0].astype(np.float64)
        if components:
            x = PCA(components, random_state=0).fit_transform((x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9))
        return x[:n]

    return make


def photograph(n: int) -> Array:
    """Pixels of a photograph, evenly spaced, in the order of the picture."""
    pixels = datasets.load_sample_image("china.jpg").reshape(-1, 3).astype(np.float64)
    # Colours are whole numbers: without a little noise some components would find a plane.
    pixels += np.random.default_rng(0).random(pixels.shape)
    return pixels[:: max(1, len(pixels) // n)][:n]


UNEVEN = (0.5, 0.25, 0.12, 0.08, 0.03, 0.02)
# Of several kinds of overlapping clusters, that on which EM and a first prototype of the local steps took about as many
# passes as in the study that the requirements are from.
OVERLAP, OVERLAP_2 = corner(3, 2.0, 1), clusters(2, 3, 0.9, 1)
UNBALANCED, TURNED = clusters(3, 6, 2.2, 3, UNEVEN), clusters(2, 6, 3.0, 3, turned=True)
APART = clusters(4, 5, 3.0, 5)
ALL = 10**9

GENERATED = (
    Problem("overlap", "full", 4, OVERLAP, 3000),
    Problem("overlap", "diag", 4, OVERLAP, 3000),
    Problem("overlap", "spherical", 4, OVERLAP, 3000),
    Problem("overlap 2", "diag", 3, OVERLAP_2, 3000),
    Problem("anisotropic", "full", 6, TURNED, 3000),
    Problem("unbalanced", "diag", 6, UNBALANCED, 3000),
    Problem("apart", "full", 5, APART, 3000),
)
CHINA = (Problem("china", "full", 8, photograph, 3000), Problem("china", "spherical", 8, photograph, 3000))
SHIPPED = (
    Problem("iris", "full", 3, loaded(datasets.load_iris), ALL),
    Problem("wine (5 PCs)", "diag", 3, loaded(datasets.load_wine, 5), ALL),
    Problem("breast cancer (6 PCs)", "full", 2, loaded(datasets.load_breast_cancer, 6), ALL),
    Problem("digits (10 PCs)", "diag", 10, loaded(datasets.load_digits, 10), ALL),
    *CHINA,
)
CRAWL = GENERATED[0]
RAW = (*GENERATED, *SHIPPED)
PIPELINE = (CRAWL, CHINA[0], GENERATED[5], GENERATED[4], GENERATED[6], GENERATED[3])
