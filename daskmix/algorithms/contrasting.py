"""How much likelier a larger mixture is than a smaller one, both fitted to the same rows in the same passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daskmix.algorithms.acceleration import Accelerated, AcceleratedState
from daskmix.algorithms.base import Algorithm, Outcome
from daskmix.block import Array
from daskmix.errors import CollapsedComponentError
from daskmix.mixture import Mixture
from daskmix.reduction import Reduction, Together

TRIAL = 6  # passes after which half of the starts of the larger mixture leave, and again as often
MOST_STARTS = 16


@dataclass(frozen=True)
class ContrastState:
    """The smaller mixture, and the starts of the larger one that may still be the best."""

    null: AcceleratedState
    starts: tuple[AcceleratedState, ...]
    passes: int = 0

    @property
    def each(self) -> tuple[AcceleratedState, ...]:
        return self.null, *self.starts

    @property
    def running(self) -> tuple[bool, ...]:
        return tuple(state.outcome is Outcome.running for state in self.each)

    @property
    def ranked(self) -> list[AcceleratedState]:
        """The larger mixtures, the likeliest first, those that have collapsed last."""
        return sorted(self.starts, key=lambda state: (state.outcome is not Outcome.failed, state.value), reverse=True)

    @property
    def best(self) -> AcceleratedState:
        return self.ranked[0]

    @property
    def outcome(self) -> Outcome:
        if any(self.running):
            return Outcome.running
        ended = {self.null.outcome, self.best.outcome}
        return next(o for o in (Outcome.failed, Outcome.exhausted, Outcome.converged) if o in ended)

    @property
    def objective(self) -> float:
        return self.best.value

    @property
    def scores(self) -> tuple[float, float]:
        """Log-likelihoods of both, once they are done."""
        return self.null.score, self.best.score

    @property
    def why(self) -> str:
        """What failed, where something did."""
        return str(self.null.why or self.best.why)


@dataclass(frozen=True)
class Contrasting(Algorithm[ContrastState, tuple[Any, ...]]):
    """EM of a mixture and of one with a component more, which starts from splits of the first.

    Every few passes the likelier half of the splits goes on, until one is left (Biernacki, Celeux & Govaert 2003, short
    runs of EM; Jamieson & Talwalkar 2016, successive halving).
    """

    algorithm: Accelerated
    starts: Sequence[Mixture]

    def start(self, model: Any = None) -> ContrastState:
        return ContrastState(self.algorithm.start(model), tuple(map(self.algorithm.start, self.starts)))

    def ask(self, state: ContrastState) -> Reduction[tuple[Any, ...]]:
        asking = zip(state.each, state.running, strict=True)
        return Together(tuple(self.algorithm.ask(own) for own, runs in asking if runs))

    def tell(self, state: ContrastState, answer: tuple[Any, ...]) -> ContrastState:
        answers = iter(answer)
        asking = zip(state.each, state.running, strict=True)
        null, *starts = [self.algorithm.tell(own, next(answers)) if runs else own for own, runs in asking]
        now = replace(state, null=null, starts=tuple(starts), passes=state.passes + 1)
        return replace(now, starts=tuple(now.ranked[: (len(starts) + 1) // 2])) if now.passes % TRIAL == 0 else now


def splits(model: Mixture, floor: Array) -> list[Mixture]:
    """Mixtures of one component more, each with one cut in two across a principal axis (Ueda et al. 2000, section 3).

    The halves are those of a Gaussian. Of all axes of all components those along which most of the scatter lies; all of
    them where there are few, for clusters may lie side by side along a short one.

    Raises
    ------
    CollapsedComponentError
        Where rounding leaves none of the halves a covariance.
    """
    found, why = [], None
    for j, away in _offsets(model):
        try:
            found.append(model.split(j, away, floor))
        except CollapsedComponentError as error:
            why = error
        if len(found) == MOST_STARTS:
            break
    if not found and why is not None:
        raise why
    return found


def _offsets(model: Mixture) -> Iterator[tuple[int, Array]]:
    """Components, and how far from their mean that of a half lies: (d,); those of most scatter first."""
    (k, d), half_mean = model.shape, np.sqrt(2 / np.pi)
    variances, axes = np.linalg.eigh(np.array(model.covariance.dense(k, d)))
    scatter = model.own_weights[:, None] * variances
    for place in np.argsort(-scatter.ravel(), kind="stable"):
        j, i = divmod(int(place), d)
        yield j, half_mean * np.sqrt(variances[j, i]) * axes[j, :, i]
