"""Stochastic EM never comes to rest: its answer is the best model that it has met."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from daskmix.algorithms.base import Algorithm, Outcome, Reports
from daskmix.algorithms.em import EM, EMState, OnCollapse
from daskmix.mixture import Mixture
from daskmix.moments import Moments
from daskmix.reduction import Reduction


@dataclass(frozen=True)
class StochasticState(Reports):
    inner: EMState
    best: Mixture
    top: float = -np.inf  # its mean log-likelihood


@dataclass(frozen=True)
class Stochastic(Algorithm[StochasticState, Moments]):
    """EM whose rows go to components that are drawn, for as many passes as it may take (Celeux & Diebolt 1985).

    A model that the draws leave without a covariance ends the search, not the fit.
    """

    algorithm: EM

    def start(self, model: Mixture | None = None) -> StochasticState:
        inner = self.algorithm.start(model)
        return StochasticState(inner, inner.model)

    def ask(self, state: StochasticState) -> Reduction[Moments]:
        return self.algorithm.ask(state.inner)

    def tell(self, state: StochasticState, answer: Moments) -> StochasticState:
        told = self.algorithm.tell(state.inner, answer)
        if state.inner.settled:
            return replace(state, inner=told)
        if told.outcome is Outcome.failed and self.algorithm.on_collapse is OnCollapse.fail:
            return replace(state, inner=told)
        if told.jumped:  # what was met before had components that must not be
            state = replace(state, best=told.model, top=-np.inf)
        elif told.objective > state.top:
            state = replace(state, best=state.inner.model, top=told.objective)
        if told.settled or told.outcome is Outcome.failed:
            told = self.algorithm.settle(self.algorithm.at(told, state.best), Outcome.converged)
        return replace(state, inner=told)

    def cut_off(self, state: StochasticState) -> StochasticState | None:
        inner = self.algorithm.cut_off(self.algorithm.at(state.inner, state.best))
        return None if inner is None else replace(state, inner=inner)
