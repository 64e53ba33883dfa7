"""Random draws that depend on which row it is, never on how the rows are chunked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from daskmix.arrays import namespace, to_host
from daskmix.block import Array, Block
from daskmix.kernels import Frame, Kernels
from daskmix.reduction import Reduction, Sums


def uniform(seed: int, index: Array) -> Array:
    """A number in (0, 1] for each row, from the seed and the row's global index alone: (n,).

    SplitMix64 (Steele, Lea & Flood 2014) used as a counter-based generator.
    """
    with np.errstate(over="ignore"):
        z = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z ^= _scramble(np.uint64(seed % (1 << 64)) + np.uint64(0x9E3779B97F4A7C15))
        z = _scramble(z)
    return ((z >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53


def _scramble(z: Array) -> Array:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def completed(x: Array, w: Array) -> Array:
    """Rows (n, d) in a frame with the mean of the others where a value is missing: enough for a start.

    Of a feature that none of them has it is the frame's origin.
    """
    there = ~np.isnan(x)
    if there.all():
        return x
    weight = there * w[:, None]
    total = np.where(there, weight * x, 0.0).sum(axis=0)
    return np.where(there, x, total / np.maximum(weight.sum(axis=0), np.finfo(np.float64).tiny))


@dataclass(frozen=True)
class Sample:
    """Some of the rows, in the order of their index."""

    x: Array  # (m, d)
    w: Array  # (m,)
    index: Array  # (m,) global index
    rank: Array  # (m,) the draw that let each row in; the smallest stay
    known: Array  # (m,) the component that each row is known to be of, or -1

    def __len__(self) -> int:
        return len(self.x)

    def best(self, size: int) -> Sample:
        """The `size` rows of smallest rank, of equals the first."""
        if len(self) <= size:
            return self
        worst = np.partition(self.rank, size - 1)[size - 1]
        keep = self.rank < worst
        keep[np.flatnonzero(self.rank == worst)[: size - keep.sum()]] = True
        return self.at(keep)

    def followed_by(self, other: Sample) -> Sample:
        """Both, in the order of their index."""
        if len(self) == 0 or len(other) == 0:
            return self if len(other) == 0 else other
        joined = [np.concatenate([a, b]) for a, b in zip(self.fields(), other.fields(), strict=True)]
        if self.index[-1] > other.index[0]:  # boxes of a grid interleave
            order = np.argsort(joined[2], kind="stable")
            joined = [values[order] for values in joined]
        return Sample(*joined)

    def at(self, rows: Array) -> Sample:
        """Some of the rows, by their positions or a mask."""
        return Sample(*(values[rows] for values in self.fields()))

    def fields(self) -> tuple[Array, Array, Array, Array, Array]:
        return self.x, self.w, self.index, self.rank, self.known


def _no_sample(d: int, dtype: np.dtype) -> Sample:
    return Sample(np.empty((0, d), dtype), np.empty(0), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int32))


def _chosen(block: Block, rank: Array, keep: Array, size: int) -> Sample:
    """The `size` rows of smallest rank among those to keep, and no others, on the host."""
    xp = namespace(rank)
    rows = xp.flatnonzero(keep)
    if len(rows) > size:
        # The global index grows with the position, so of equal ranks the lower index stays, as in `Sample.best`.
        rows = xp.sort(rows[xp.argsort(rank[rows], kind="stable")[:size]])
    x, w, known = block.pick(rows)
    return Sample(x, w, to_host(block.index_of(rows)), to_host(rank[rows]), known)


@dataclass(frozen=True)
class UniformSample(Reduction[Sample]):
    """`size` rows, every row with the same chance, whatever its weight."""

    size: int
    seed: int
    d: int
    dtype: np.dtype
    likely: float = 1.0  # no row of a higher draw can be among the chosen, but by a chance below 1e-9

    @staticmethod
    def of(size: int, seed: int, d: int, dtype: np.dtype, total: int | None, spare: int = 1) -> UniformSample:
        """A sample of `total` rows; knowing the total keeps the messages small.

        It is complete as long as `spare` - 1 of `spare` rows are left out at most.
        """
        wanted = spare * size
        likely = 1.0 if not total else min(1.0, (wanted + 6 * np.sqrt(wanted) + 20) / total)
        return UniformSample(size, seed, d, dtype, likely)

    def zero(self) -> Sample:
        return _no_sample(self.d, self.dtype)

    def map(self, block: Block, ops: Kernels) -> Sample:
        rank = uniform(self.seed, block.index)
        keep = rank <= self.likely
        if block.w is not None:
            keep &= block.w > 0
        return _chosen(block, rank, keep, self.size)

    def merge(self, a: Sample, b: Sample) -> Sample:
        return a.followed_by(b).best(self.size)


@dataclass(frozen=True)
class FarSample(Reduction[Sample]):
    """`size` rows drawn without replacement, with chances as w |x - nearest centre|^2.

    Keys -log(u) / weight, of which the smallest stay (Efraimidis & Spirakis 2006), need no normalising sum: the draw of
    a k-means|| round (Bahmani et al. 2012, section 5: exactly l points) takes one pass instead of two.
    """

    size: int
    seed: int
    centres: Array  # (k, d) in the frame
    frame: Frame
    dtype: np.dtype

    def zero(self) -> Sample:
        return _no_sample(self.centres.shape[1], self.dtype)

    def map(self, block: Block, ops: Kernels) -> Sample:
        distance = ops.distance_observed if block.gaps else ops.distance
        chance = distance(block.x, self.frame, self.centres) * block.weights()
        with np.errstate(divide="ignore"):
            rank = -namespace(chance).log(uniform(self.seed, block.index)) / chance
        return _chosen(block, rank, chance > 0, self.size)

    def merge(self, a: Sample, b: Sample) -> Sample:
        return a.followed_by(b).best(self.size)

    def row_bytes(self, ops: Kernels) -> int:
        return 8 * sum(self.centres.shape)


@dataclass(frozen=True)
class Summary(Sums):
    """Count, weight and first two moments of every feature, with moments merged stably."""

    rows: int  # rows that count: present, and of positive weight
    missing: int  # rows that were left out
    gaps: int  # rows of which some values are missing, also where they weigh nothing
    mass: float
    seen: Array  # (d,) mass of the rows that have the feature; what follows is of these
    mean: Array  # (d,)
    scatter: Array  # (d,) sum of w * (x - mean)^2
    low: Array  # (d,)
    high: Array  # (d,)

    @property
    def variance(self) -> Array:
        """(d,)"""
        return self.scatter / self.seen

    def __add__(self, other: Summary) -> Summary:
        missing, gaps = self.missing + other.missing, self.gaps + other.gaps
        if self.mass == 0 or other.mass == 0:
            return replace(self if other.mass == 0 else other, missing=missing, gaps=gaps)
        # Chan, Golub & LeVeque 1979.
        seen = self.seen + other.seen
        some = np.where(seen > 0, seen, 1.0)
        delta = other.mean - self.mean
        return Summary(
            self.rows + other.rows,
            missing,
            gaps,
            self.mass + other.mass,
            seen,
            self.mean + delta * (other.seen / some),
            self.scatter + other.scatter + delta**2 * (self.seen * (other.seen / some)),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )


@dataclass(frozen=True)
class Summarise(Reduction[Summary]):
    """How many rows there are, where, and how far apart."""

    d: int

    def zero(self) -> Summary:
        nothing = np.zeros(self.d)
        return Summary(0, 0, 0, 0.0, nothing, nothing, nothing, nothing + np.inf, nothing - np.inf)

    def map(self, block: Block, ops: Kernels) -> Summary:
        xp = namespace(block.x)
        gaps = xp.isnan(block.x).any(axis=1).sum() if block.gaps else xp.asarray(0)
        x = block.x if block.w is None else block.x[block.w > 0]
        w = block.w if block.w is None else block.w[block.w > 0]
        if len(x) == 0:
            return replace(self.zero(), missing=block.missing, gaps=int(to_host(gaps)))
        mass = xp.asarray(float(len(x))) if w is None else w.sum()
        found = mass, gaps, *(_of_observed if block.gaps else _of_complete)(x, w, mass)
        total, partial, *moments = map(to_host, found)
        return Summary(len(x), block.missing, int(partial), float(total), *moments)

    def row_bytes(self, ops: Kernels) -> int:
        return 24 * self.d


def _of_complete(x: Array, w: Array | None, mass: Array) -> tuple[Array, ...]:
    """Mass, mean, scatter, least and largest value of each feature, each (d,)."""
    xp = namespace(x)
    # About a row of the block, in float64: an offset costs no digits.
    pivot = x[0].astype(np.float64)
    away = x - pivot
    shift = away.mean(axis=0) if w is None else w @ away / mass
    square = xp.einsum("nd,nd->d", away, away) if w is None else xp.einsum("n,nd,nd->d", w, away, away)
    scatter = xp.maximum(square - mass * shift**2, 0.0)
    return xp.ones(x.shape[1]) * mass, pivot + shift, scatter, x.min(axis=0), x.max(axis=0)


def _of_observed(x: Array, w: Array | None, mass: Array) -> tuple[Array, ...]:
    """The same of the values that are there."""
    xp = namespace(x)
    there = ~xp.isnan(x)
    # The first value of each feature; where there is none, any number will do.
    pivot = x[there.argmax(axis=0), xp.arange(x.shape[1])].astype(np.float64)
    pivot = xp.where(xp.isnan(pivot), 0.0, pivot)
    away = xp.where(there, x - pivot, 0.0)
    weight = there.astype(np.float64) if w is None else there * w[:, None]
    seen = weight.sum(axis=0)
    shift = (weight * away).sum(axis=0) / xp.where(seen > 0, seen, 1.0)
    scatter = xp.maximum((weight * away * away).sum(axis=0) - seen * shift**2, 0.0)
    low, high = xp.where(there, x, np.inf).min(axis=0), xp.where(there, x, -np.inf).max(axis=0)
    return seen, pivot + shift, scatter, low, high


@dataclass(frozen=True)
class Labelled(Sums):
    """What there is of rows whose component is known."""

    seen: Array  # (k, d) mass of those that have the feature
    first: Array  # (k, d) sum of w * x

    def means(self) -> Array:
        """(k, d), NaN where nothing is known."""
        return np.where(self.seen > 0, self.first / np.where(self.seen > 0, self.seen, 1.0), np.nan)


@dataclass(frozen=True)
class OfKnown(Reduction[Labelled]):
    """Where the rows are whose component is known."""

    k: int
    d: int

    def zero(self) -> Labelled:
        return Labelled(*np.zeros((2, self.k, self.d)))

    def map(self, block: Block, ops: Kernels) -> Labelled:
        if block.known is None:
            return self.zero()
        xp = namespace(block.x)
        rows = xp.flatnonzero(block.known >= 0)
        share = (block.known[rows][:, None] == xp.arange(self.k)) * block.weights()[rows][:, None]
        x = block.x[rows].astype(np.float64)
        there = ~xp.isnan(x)
        return Labelled(*map(to_host, (share.T @ there.astype(np.float64), share.T @ xp.where(there, x, 0.0))))

    def row_bytes(self, ops: Kernels) -> int:
        return 8 * (3 * self.d + 2 * self.k)
