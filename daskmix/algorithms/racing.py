"""Many models share each pass; those that cannot win any more leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daskmix.algorithms.acceleration import Accelerated, AcceleratedState
from daskmix.algorithms.base import Algorithm, Outcome
from daskmix.reduction import Reduction, Together

BEST = 5  # that always stay
SURE = 3.0  # times the estimated gap, which has to be seen twice


@dataclass(frozen=True)
class RacingState:
    """The states of all models, and which of them may still win."""

    states: tuple[AcceleratedState, ...]
    hopeful: tuple[bool, ...]
    passes: tuple[int, ...]  # that each took part in
    asked: int = 0  # how many took part in the last

    @property
    def live(self) -> tuple[int, ...]:
        """Who asks in the next pass."""
        each = enumerate(zip(self.states, self.hopeful, strict=True))
        return tuple(i for i, (state, hopeful) in each if hopeful and state.outcome is Outcome.running)

    @property
    def outcome(self) -> Outcome:
        return Outcome.running if self.live else Outcome.converged

    @property
    def objective(self) -> float:
        return max(state.value for state in self.states)


@dataclass(frozen=True)
class Racing(Algorithm[RacingState, tuple[Any, ...]]):
    """Accelerated models of one set of rows, of which the best by some criterion is wanted.

    A model leaves when even with all that it may gain yet it would be worse than another is now; the best five stay
    until they are done, for polishing may take one to a better optimum.
    """

    models: tuple[Accelerated, ...]
    slack: tuple[float, ...]  # what each may gain of its mean log-likelihood, until its gap is known
    # (number of the model, mean log-likelihood, sum of the log of the largest responsibility) -> smaller is better
    criterion: Callable[[int, float, float], float]

    def start(self, model: Sequence[Any] | None = None) -> RacingState:
        if model is None:
            raise ValueError("a race starts from one model for each racer")
        states = tuple(racer.start(own) for racer, own in zip(self.models, model, strict=True))
        return RacingState(states, (True,) * len(states), (0,) * len(states))

    def ask(self, state: RacingState) -> Reduction[tuple[Any, ...]]:
        return Together(tuple(self.models[i].ask(state.states[i]) for i in state.live))

    def tell(self, state: RacingState, answer: tuple[Any, ...]) -> RacingState:
        states, passes, live = list(state.states), list(state.passes), state.live
        for i, own in zip(live, answer, strict=True):
            states[i] = self.models[i].tell(states[i], own)
            passes[i] += 1
        return self._without_losers(replace(state, states=tuple(states), passes=tuple(passes), asked=len(live)))

    def _without_losers(self, state: RacingState) -> RacingState:
        now = np.array([self._worth(i, own, 0.0, own.certainty) for i, own in enumerate(state.states)])
        best = set(np.argsort(now, kind="stable")[:BEST].tolist())
        hopeful = [
            hopes and (i in best or not np.isfinite(own.value) or self._optimist(i, own) <= now.min())
            for i, (own, hopes) in enumerate(zip(state.states, state.hopeful, strict=True))
        ]
        return replace(state, hopeful=tuple(hopeful))

    def _worth(self, i: int, state: AcceleratedState, gain: float, certainty: float) -> float:
        if state.outcome is Outcome.failed or np.isnan(state.value):
            return np.inf
        return self.criterion(i, state.value + gain, certainty)

    def _optimist(self, i: int, state: AcceleratedState) -> float:
        """The criterion with all that a model may gain yet, if it were sure of every row."""
        known = len(state.points) > 2 and np.isfinite(state.gap)
        return self._worth(i, state, SURE * abs(state.gap) if known else self.slack[i], 0.0)
