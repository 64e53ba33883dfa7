"""How rows are spread over the values of some features, and of pairs of them, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from daskmix.arrays import namespace, to_host
from daskmix.block import Array, Block
from daskmix.kernels import Kernels
from daskmix.reduction import Reduction, Sums


@dataclass(frozen=True)
class Histograms(Sums):
    """Mass of rows in the bins of m features; pairs of features as `itertools.combinations` has them."""

    mass: float
    seen: Array  # (m,) mass of the rows that have the feature, in a bin or outside of all
    single: Array  # (m, bins)
    double: Array  # (m (m - 1) / 2, bins, bins), of the rows that have both


@dataclass(frozen=True)
class CountBins(Reduction[Histograms]):
    """Bins hold what is at least their lower edge and below their upper one, the last also its upper edge."""

    features: tuple[int, ...]
    edges: Array  # (m, bins + 1), ascending

    def zero(self) -> Histograms:
        m, bins = len(self.features), self.edges.shape[1] - 1
        return Histograms(0.0, np.zeros(m), np.zeros((m, bins)), np.zeros((m * (m - 1) // 2, bins, bins)))

    def map(self, block: Block, ops: Kernels) -> Histograms:
        xp, w, bins = namespace(block.x), block.weights(), self.edges.shape[1] - 1
        columns = [block.x[:, feature] for feature in self.features]
        seen = [(w * ~xp.isnan(x)).sum() for x in columns]
        each = [_bins(x, xp.asarray(own)) for x, own in zip(columns, self.edges, strict=True)]
        # One bin more takes what is outside; it is cut off at the end.
        more = bins + 1
        single = [xp.bincount(at, weights=w, minlength=more)[:bins] for at in each]
        double = [
            xp.bincount(a * more + b, weights=w, minlength=more * more).reshape(more, more)[:bins, :bins]
            for a, b in combinations(each, 2)
        ]
        none = self.zero()
        return Histograms(
            float(to_host(w.sum())),
            to_host(xp.stack(seen)),
            to_host(xp.stack(single)),
            to_host(xp.stack(double)) if double else none.double,
        )

    def row_bytes(self, ops: Kernels) -> int:
        return 8 * (3 * len(self.features) + 4)


def _bins(x: Array, edges: Array) -> Array:
    """Which bin each value is in: (n,), the number of bins for what is outside or missing."""
    xp, bins = namespace(x), len(edges) - 1
    there = (x >= edges[0]) & (x <= edges[-1])  # which NaN is not
    at = xp.searchsorted(edges, x, side="right") - 1
    return xp.where(there, xp.where(at == bins, bins - 1, at), bins)
