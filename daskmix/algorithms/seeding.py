"""Where to start: centres drawn from a sample, or by passes over all rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from daskmix.algorithms.base import Algorithm, Outcome
from daskmix.block import Array
from daskmix.centroids import Assign, Centroids
from daskmix.kernels import Frame
from daskmix.reduction import Reduction
from daskmix.sampling import FarSample, Sample, completed

MET, NEIGHBOUR = 1000, 5
MEETING = 1 << 12  # rows that meet these at a time
DRAW_ROWS = 1 << 16  # distances are computed for so many rows at a time


def random_rows(x: Array, w: Array, k: int, rng: np.random.Generator) -> Array:
    """k different rows, each with a chance as its weight: (k, d)."""
    return x[rng.choice(len(x), size=k, replace=False, p=w / w.sum())]


def crowded(x: Array, share: float) -> Array:
    """Which rows have neighbours: all but this share, which is farthest from the fifth nearest of some rows (n,).

    Byers & Raftery (1998), Nearest-neighbor clutter removal, with a share that is given and a thousand rows to meet.
    """
    met = x[:: max(1, len(x) // MET)]
    reach = np.empty(len(x))
    for a in range(0, len(x), MEETING):
        own = x[a : a + MEETING]
        squares = (own * own).sum(axis=1)[:, None] - 2 * own @ met.T + (met * met).sum(axis=1)
        place = min(NEIGHBOUR, len(met) - 1)
        reach[a : a + MEETING] = np.partition(squares, place, axis=1)[:, place]
    return reach <= np.quantile(reach, 1.0 - share)


def plus_plus(x: Array, w: Array, k: int, rng: np.random.Generator, given: Array | None = None) -> Array:
    """Greedy k-means++ (Arthur & Vassilvitskii 2007, section 6: the best of 2 + log k draws): (k, d).

    The first of them are those that are given (m, d). Rows with gaps are as far apart as the features suggest that both
    have, and get the mean in their gaps.
    """
    trials = 2 + int(np.log(k))
    chosen = np.empty(k, dtype=np.int64)
    m = 0 if given is None else len(given)
    if given is not None:  # rows that weigh nothing
        chosen[:m] = len(x) + np.arange(m)
        x, w = np.concatenate([x, given]), np.concatenate([w, np.zeros(m)])
    distance = _PartialDistance.of(x) if np.isnan(x).any() else _Distance(x, (x * x).sum(axis=1))
    if m == 0:
        chosen[0] = rng.choice(len(x), p=w / w.sum())
    first = max(m, 1)
    closest = distance.to(chosen[:first]).min(axis=1)
    for j in range(first, k):
        cumulative = np.cumsum(closest * w)
        if cumulative[-1] > 0:
            draws = np.searchsorted(cumulative, rng.random(trials) * cumulative[-1], side="right")
        else:  # every row stands on a centre already
            draws = rng.integers(len(x), size=trials)
        draws = np.minimum(draws, len(x) - 1)
        candidate = np.minimum(closest[:, None], distance.to(draws))
        best = int(np.argmin(w @ candidate))
        chosen[j], closest = draws[best], candidate[:, best]
    return completed(x, w)[chosen]


@dataclass(frozen=True)
class _Distance:
    x: Array  # (n, d)
    squares: Array  # (n,) |x|^2

    def to(self, rows: Array) -> Array:
        """|x - x[row]|^2: (n, len(rows)). A row's distance to itself, or to its double, is zero by definition."""
        x, squares = self.x, self.squares
        out = np.empty((len(x), len(rows)))
        for a in range(0, len(x), DRAW_ROWS):
            part = slice(a, a + DRAW_ROWS)
            out[part] = squares[part, None] - 2 * (x[part] @ x[rows].T) + squares[rows]
        # What rounding leaves of a distance is not one.
        out[out < 1e-14 * (squares[:, None] + squares[rows])] = 0.0
        return out


@dataclass(frozen=True)
class _PartialDistance:
    """The mean over the features that two rows have, times their number (Dixon 1979)."""

    x: Array  # (n, d) zero where missing
    there: Array  # (n, d) 1 where not
    typical: float  # of two rows, and so of those that have no feature in common

    @staticmethod
    def of(x: Array) -> _PartialDistance:
        there = ~np.isnan(x)
        seen = np.maximum(there.sum(axis=0), 1)
        filled = np.where(there, x, 0.0)
        variance = np.where(there, x - filled.sum(axis=0) / seen, 0.0) ** 2
        return _PartialDistance(filled, there.astype(np.float64), 2.0 * float((variance.sum(axis=0) / seen).sum()))

    def to(self, rows: Array) -> Array:
        """|x - x[row]|^2: (n, len(rows))."""
        x, there = self.x[rows], self.there[rows]
        out = np.empty((len(self.x), len(rows)))
        for a in range(0, len(self.x), DRAW_ROWS):
            own, has = self.x[a : a + DRAW_ROWS], self.there[a : a + DRAW_ROWS]
            squares = (own * own) @ there.T - 2 * (own @ x.T) + has @ (x * x).T
            both = has @ there.T
            scaled = np.maximum(squares, 0.0) * (x.shape[1] / np.maximum(both, 1.0))
            out[a : a + DRAW_ROWS] = np.where(both > 0, scaled, self.typical)
        return out


@dataclass(frozen=True)
class ParallelState:
    model: Centroids  # candidates; at the end the k that were chosen
    round: int = 0
    outcome: Outcome = Outcome.running
    objective: float = np.nan


@dataclass(frozen=True)
class ParallelSeeding(Algorithm[ParallelState, object]):
    """k-means|| (Bahmani et al. 2012): rounds of l = 2k far rows, then k-means++ on the candidates by their mass."""

    k: int
    frame: Frame
    dtype: np.dtype
    seed: int
    rounds: int = 5
    kind: type[Centroids] = Centroids

    def start(self, model: Centroids | None = None) -> ParallelState:
        if model is None:
            raise ValueError("k-means|| starts from one centre")
        return ParallelState(model)

    def ask(self, state: ParallelState) -> Reduction[object]:
        if state.round < self.rounds:
            seed = self.seed + 1 + state.round
            return FarSample(2 * self.k, seed, state.model.centres, self.frame, self.dtype)  # type: ignore[return-value]
        return Assign(state.model, self.frame)  # type: ignore[return-value]

    def tell(self, state: ParallelState, answer: object) -> ParallelState:
        if isinstance(answer, Sample):
            drawn = completed(self.frame.enter(answer.x.astype(np.float64)), answer.w)
            candidates = self.kind(np.concatenate([state.model.centres, drawn]))
            return replace(state, model=candidates, round=state.round + 1)
        mass = answer.mass  # type: ignore[attr-defined]
        rng = np.random.default_rng([self.seed, 1])
        chosen = plus_plus(state.model.centres, mass, min(self.k, len(mass)), rng)
        # Fewer distinct rows than clusters: doubled centres, whose second copies stay empty.
        chosen = np.resize(chosen, (self.k, chosen.shape[1]))
        return ParallelState(self.kind(chosen), self.rounds, Outcome.converged, answer.cost)  # type: ignore[attr-defined]
