"""Lloyd's iteration for K-means (Lloyd 1982)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from daskmix.algorithms.base import Iteration, Outcome
from daskmix.block import Array
from daskmix.centroids import Assign, Assignment, Centroids
from daskmix.kernels import Frame
from daskmix.reduction import Reduction

# Bounds spare time where there are so many centres, and numbers in them: measured by `benchmarks/pruning.py`.
MANY, NUMBERS = 128, 2048
LEAST_NOISE = 1e-9  # of a cost, relative
# Empty clusters that may be moved in the first pass, and in another, unless more were empty in the one before.
RELOCATABLE, USUALLY = 256, 16


@dataclass(frozen=True)
class LloydState:
    model: Centroids
    outcome: Outcome = Outcome.running
    n_iter: int = 0
    cost: float = np.inf  # of the model that the last pass asked about, in units of the rows
    gap: float = np.nan  # what is to be gained yet, relative to the cost, if the last step was the whole way
    mass: Array | None = None  # (k,) of each cluster in the last pass
    seen: Array | None = None  # (k, d) or (k, 1) of that the rows that have the feature
    relocated_in_all: int = 0  # empty clusters that were moved so far
    spared: int = 0  # distances that the last pass did not compute, of all rows to all centres
    settled: Outcome | None = None  # the centres are final, and why; only their cost is still to be measured

    @property
    def objective(self) -> float:
        return self.cost


@dataclass(frozen=True)
class Lloyd(Iteration[LloydState, Assignment]):
    """Move every centre to the mean of its rows until they stay put, then measure what that cost."""

    frame: Frame
    tol: float = 0.0  # on the sum of squared shifts of the centres, in the frame
    max_iter: int = 300
    start_number: int = 0  # of several that share their passes

    def start(self, model: Centroids | None = None) -> LloydState:
        if model is None:
            raise ValueError("Lloyd starts from centres")
        return LloydState(model, settled=Outcome.exhausted if self.max_iter == 0 else None)

    def ask(self, state: LloydState) -> Reduction[Assignment]:
        relocatable = 0 if state.settled else min(state.model.k - 1, self._relocatable(state))
        k, numbers = state.model.k, state.model.centres.size
        memo = f"lloyd {self.start_number}" if k >= MANY and numbers >= NUMBERS else ""
        return Assign(state.model, self.frame, relocatable, memo)

    @staticmethod
    def _relocatable(state: LloydState) -> int:
        # To keep the farthest rows of each chunk costs time, and few clusters are ever empty after the first pass.
        empty = RELOCATABLE if state.mass is None else int((state.mass == 0).sum())
        return min(max(empty, USUALLY), RELOCATABLE)

    def tell(self, state: LloydState, answer: Assignment) -> LloydState:
        # Scales are powers of two, so this is exact.
        cost = answer.cost / float(self.frame.scale[0]) ** 2
        state = replace(state, spared=answer.spared)
        if state.settled:
            return replace(state, cost=cost, mass=answer.mass, seen=answer.seen, outcome=state.settled)
        sums, relocated = answer.relocated()
        moved = state.model.learn(sums)
        shift = float(((moved.centres - state.model.centres) ** 2).sum())
        relocations = state.relocated_in_all + len(relocated)
        now = replace(
            state, relocated_in_all=relocations, n_iter=state.n_iter + 1, cost=cost, mass=answer.mass, seen=answer.seen
        )
        if shift == 0.0:
            # The cost just measured is that of these very centres.
            return replace(now, outcome=Outcome.converged, gap=0.0)
        now = replace(now, model=moved)
        now = replace(now, gap=self.gap(state, now, moved))
        if shift <= self.tol:
            return replace(now, settled=Outcome.converged)
        return replace(now, settled=Outcome.exhausted) if now.n_iter >= self.max_iter else now

    def cut_off(self, state: LloydState) -> LloydState | None:
        return None if state.mass is None else replace(state, outcome=Outcome.exhausted, cost=np.nan)

    def value(self, state: LloydState, answer: Assignment) -> float:
        # The logarithm, so that differences are relative.
        return -float(np.log(answer.cost)) if answer.cost > 0 else np.inf

    def noise(self, state: LloydState) -> float:
        return LEAST_NOISE

    def at(self, state: LloydState, model: Centroids) -> LloydState:
        return replace(state, model=model, outcome=Outcome.running)

    def back(self, before: LloydState, told: LloydState, model: Centroids) -> LloydState:
        return replace(self.at(told, model), relocated_in_all=before.relocated_in_all)

    def same_map(self, before: LloydState, after: LloydState) -> bool:
        return before.relocated_in_all == after.relocated_in_all

    def in_metric(self, state: LloydState, moves: Array) -> Array:
        k, d = state.model.centres.shape
        root = np.sqrt(np.ones((k, 1)) if state.seen is None else state.seen)
        return (moves.reshape(-1, k, d) * root).reshape(len(moves), -1)

    def gap(self, before: LloydState, told: LloydState, top: Centroids) -> float:
        # Half the Newton decrement, relative to the cost; its gradient is -2 seen (image - model).
        step, way = told.model.centres - before.model.centres, top.centres - before.model.centres
        gained = 0.0 if told.seen is None else float((told.seen * step * way).sum())
        cost = told.cost * float(self.frame.scale[0]) ** 2
        return gained / cost if cost > np.finfo(np.float64).tiny else 0.0
