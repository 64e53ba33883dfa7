"""Components that are merged into clusters, two at a time (Baudry, Raftery, Celeux, Lo & Gottardo 2010)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from daskmix.algorithms.base import Algorithm, Outcome
from daskmix.arrays import to_host
from daskmix.block import Array, Block
from daskmix.kernels import Kernels
from daskmix.reduction import Reduction, Sums

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Overlaps(Sums):
    """Sums over all rows, t the probability of a cluster, or of two together."""

    mass: float
    values: Array  # (g, g) of w t log t


@dataclass(frozen=True)
class Overlap(Reduction[Overlaps]):
    """How much the clusters overlap, and how much less so if any two were one."""

    probabilities: Callable[[Array, bool], Array]  # (n, d), and whether there are gaps -> (n, k)
    groups: Groups

    def zero(self) -> Overlaps:
        return Overlaps(0.0, np.zeros((len(self.groups), len(self.groups))))

    def map(self, block: Block, ops: Kernels) -> Overlaps:
        each, w = to_host(self.probabilities(block.x, block.gaps)), to_host(block.weights())
        t = np.stack([each[:, list(group)].sum(axis=1) for group in self.groups], axis=1)
        out = self.zero().values
        for a in range(len(out)):
            both = t[:, a:] + t[:, a, None]
            both[:, 0] = t[:, a]
            out[a, a:] = out[a:, a] = w @ (both * np.log(np.where(both > 0, both, 1.0)))
        return Overlaps(float(w.sum()), out)

    def row_bytes(self, ops: Kernels) -> int:
        return 32 * sum(map(len, self.groups)) + 64


@dataclass(frozen=True)
class Merger:
    """Clusters, and the entropy of what rows belong to them."""

    groups: Groups
    entropy: float  # mean of a row, in nats


@dataclass(frozen=True)
class MergingState:
    groups: Groups
    mergers: tuple[Merger, ...] = ()  # from all components on, each with a cluster less
    outcome: Outcome = Outcome.running

    @property
    def objective(self) -> float:
        return self.mergers[-1].entropy if self.mergers else np.nan


@dataclass(frozen=True)
class Merging(Algorithm[MergingState, Overlaps]):
    """Merge the two clusters that lower the entropy most, until so many are left."""

    probabilities: Callable[[Array, bool], Array]
    k: int
    least: int

    def start(self, model: None = None) -> MergingState:
        return MergingState(tuple((j,) for j in range(self.k)))

    def ask(self, state: MergingState) -> Reduction[Overlaps]:
        return Overlap(self.probabilities, state.groups)

    def tell(self, state: MergingState, answer: Overlaps) -> MergingState:
        values, own = answer.values, np.diag(answer.values)
        entropy = -float(own.sum()) / answer.mass if answer.mass > 0 else np.nan
        now = replace(state, mergers=(*state.mergers, Merger(state.groups, entropy)))
        if len(state.groups) <= self.least:
            return replace(now, outcome=Outcome.converged)
        lowers = values - own - own[:, None]
        np.fill_diagonal(lowers, -np.inf)
        a, b = sorted(map(int, np.unravel_index(lowers.argmax(), lowers.shape)))
        groups = list(state.groups)
        groups[a] = tuple(sorted((*groups[a], *groups.pop(b))))
        return replace(now, groups=tuple(groups))
