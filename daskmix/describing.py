"""What other variables are like in each cluster, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from daskmix.arrays import to_host
from daskmix.block import Array, Block, Missing
from daskmix.errors import InputError
from daskmix.kernels import Kernels
from daskmix.reduction import Reduction
from daskmix.sampling import Sample, Summarise, Summary, UniformSample, uniform


@dataclass(frozen=True)
class Described:
    """Of each cluster: count, weight and moments of every variable, and some rows for quantiles."""

    summaries: tuple[Summary, ...]
    samples: tuple[Sample, ...]

    def quantiles(self, at: Sequence[float]) -> Array:
        """The least value that at least such a share of the weight does not exceed: (k, m, len(at)), NaN where none."""
        return np.array([[_quantiles(s.x[:, v], s.w, at) for v in range(s.x.shape[1])] for s in self.samples])


def _quantiles(values: Array, w: Array, at: Sequence[float]) -> Array:
    there = ~np.isnan(values)
    values, w = values[there], w[there]
    if len(values) == 0:
        return np.full(len(at), np.nan)
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(w[order])
    # A share that rounding puts a hair above a step is meant to be on it.
    found = np.searchsorted(cumulative, np.asarray(at) * cumulative[-1] * (1 - 1e-12))
    return values[order][np.minimum(found, len(values) - 1)]


@dataclass(frozen=True)
class Describe(Reduction[Described]):
    """Rows hold d features, and m variables from column `start` on, of which some may be missing.

    Quantiles are those of a uniform sample of each cluster's rows: exact where it has no more, else the standard error
    of a rank is at most 1 / (2 sqrt(size)) of them.
    """

    labels: Callable[[Array, bool], Array]  # (n, d), and whether there are gaps -> (n,)
    k: int
    d: int
    start: int  # 0: the features themselves
    m: int
    missing: Missing  # what is done about rows that lack some features
    size: int
    seed: int

    def zero(self) -> Described:
        nothing = Summarise(self.m).zero()
        none = UniformSample(self.size, self.seed, self.m, np.dtype(np.float64)).zero()
        return Described((nothing,) * self.k, (none,) * self.k)

    def map(self, block: Block, ops: Kernels) -> Described:
        # To the host: each cluster's rows are taken apart.
        rows, w = to_host(block.x), to_host(block.weights())
        x, others = rows[:, : self.d], rows[:, self.start :].astype(np.float64)
        absent, counts = np.isnan(x), w > 0
        lacking = absent.all(axis=1) if self.missing is Missing.observe else absent.any(axis=1)
        if self.missing is Missing.refuse and (block.missing or (lacking & counts).any()):
            raise InputError('a row holds NaN in a feature; pass missing="drop" to leave such rows out')
        has_label = ~lacking & counts
        label, rank = np.full(len(x), -1), to_host(uniform(self.seed, block.index))
        if has_label.any():
            label[has_label] = self.labels(x[has_label], bool(absent[has_label].any()))
        each = [np.flatnonzero(label == j) for j in range(self.k)]
        summaries = [Summarise(self.m).map(Block(others[own], w[own], block.place, gaps=True), ops) for own in each]
        index, known = block.index_of, np.full(len(x), -1, np.int32)
        samples = [Sample(others[i], w[i], index(i), rank[i], known[i]).best(self.size) for i in each]
        return Described(tuple(summaries), tuple(samples))

    def merge(self, a: Described, b: Described) -> Described:
        summaries = tuple(x + y for x, y in zip(a.summaries, b.summaries, strict=True))
        pairs = zip(a.samples, b.samples, strict=True)
        return Described(summaries, tuple(x.followed_by(y).best(self.size) for x, y in pairs))

    def row_bytes(self, ops: Kernels) -> int:
        return 16 * (self.d + 2 * self.m + self.k)
