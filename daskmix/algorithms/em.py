"""Expectation-maximisation for Gaussian mixtures (Dempster, Laird & Rubin 1977)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from daskmix.algorithms.base import Algorithm, Outcome
from daskmix.block import Array
from daskmix.errors import CollapsedComponentError
from daskmix.kernels import Frame
from daskmix.mixture import Explain, Mixture, Moments
from daskmix.reduction import Reduction


@dataclass(frozen=True)
class EMState:
    model: Mixture
    path: str
    outcome: Outcome = Outcome.running
    n_iter: int = 0
    objective: float = -np.inf  # mean smoothed log-likelihood of the model that the last pass asked about
    settled: Outcome | None = None  # the model is final, and why; only its likelihood is still to be measured
    score: float = np.nan  # sum of w * log p(x) of the final model, not smoothed
    certainty: float = np.nan  # sum of w * log of the largest responsibility, of the final model
    why: str = ""  # what failed, where the outcome is `failed`


@dataclass(frozen=True)
class EM(Algorithm[EMState, Moments]):
    """Alternate E-step and M-step until the mean log-likelihood gains less than `tol`, then measure what came out."""

    frame: Frame
    dtype: np.dtype  # of the rows
    floor: Array  # (d,) smoothing, in the frame
    tol: float = 1e-3
    max_iter: int = 100

    def start(self, model: Mixture | None = None) -> EMState:
        if model is None:
            raise ValueError("EM starts from a mixture")
        settled = Outcome.exhausted if self.max_iter == 0 else None
        return EMState(model, model.path(self.dtype), settled=settled)

    def ask(self, state: EMState) -> Reduction[Moments]:
        floor = np.zeros_like(self.floor) if state.settled else self.floor
        return Explain(state.model, self.frame, state.path, floor)

    def tell(self, state: EMState, answer: Moments) -> EMState:
        if state.settled:
            return replace(state, outcome=state.settled, score=answer.score, certainty=answer.certainty)
        objective = answer.score / answer.mass.sum()
        try:
            model = state.model.learn(answer, self.floor)
        except CollapsedComponentError as error:
            return replace(state, outcome=Outcome.failed, n_iter=state.n_iter + 1, objective=objective, why=str(error))
        now = replace(
            state, model=model, path=model.path(self.dtype, state.path), n_iter=state.n_iter + 1, objective=objective
        )
        if abs(objective - state.objective) < self.tol or _same(model, state.model):
            return replace(now, settled=Outcome.converged)
        return replace(now, settled=Outcome.exhausted) if now.n_iter >= self.max_iter else now


def _same(a: Mixture, b: Mixture) -> bool:
    return (
        np.array_equal(a.weights, b.weights)
        and np.array_equal(a.means, b.means)
        and np.array_equal(a.covariance.values, b.covariance.values)
    )
