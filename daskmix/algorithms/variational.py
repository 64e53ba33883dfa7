"""Variational inference for Bayesian Gaussian mixtures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from daskmix.algorithms.base import Algorithm, Outcome
from daskmix.block import Array
from daskmix.errors import CollapsedComponentError
from daskmix.kernels import Frame
from daskmix.moments import Moments
from daskmix.reduction import Reduction
from daskmix.sharing import Explain
from daskmix.variational import Posterior, Prior


@dataclass(frozen=True)
class VariationalState:
    model: Posterior
    path: str
    outcome: Outcome = Outcome.running
    n_iter: int = 0
    bound: float = -np.inf  # of the log evidence of all rows
    objective: float = -np.inf  # the same for each unit of mass
    gain: float = np.nan  # of that over the pass before
    why: str = ""  # what failed, where the outcome is `failed`


@dataclass(frozen=True)
class Variational(Algorithm[VariationalState, Moments]):
    """By turns the responsibilities that suit the posterior and the posterior that suits them; the bound never falls.

    It ends when the bound, for each unit of mass, gains less than `tol`.
    """

    prior: Prior
    frame: Frame
    dtype: np.dtype  # of the rows
    floor: Array  # (d,) smoothing, in the frame
    tol: float = 1e-3
    max_iter: int = 100

    @property
    def log_scale(self) -> float:
        return float(np.log(self.frame.scale).sum())

    def start(self, model: Posterior | None = None) -> VariationalState:
        if model is None:
            raise ValueError("variational inference starts from a posterior")
        outcome = Outcome.exhausted if self.max_iter == 0 else Outcome.running
        return VariationalState(model, model.mixture.path(self.dtype), outcome)

    def ask(self, state: VariationalState) -> Reduction[Moments]:
        return Explain(state.model.mixture, self.frame, state.path, self.floor)

    def tell(self, state: VariationalState, answer: Moments) -> VariationalState:
        # The entropy of the responsibilities, which are softmax(log p(x, k)).
        entropy = answer.score - state.model.mixture.explained(answer, self.floor, self.log_scale)
        n_iter = state.n_iter + 1
        try:
            model = self.prior.posterior(answer, state.model.family, self.floor)
        except CollapsedComponentError as error:
            return replace(state, outcome=Outcome.failed, n_iter=n_iter, why=str(error))
        bound = model.bound(entropy, self.log_scale)
        objective = bound / float(answer.mass.sum())
        gain = objective - state.objective
        outcome = Outcome.running
        if abs(gain) < self.tol:
            outcome = Outcome.converged
        elif n_iter >= self.max_iter:
            outcome = Outcome.exhausted
        path = model.mixture.path(self.dtype, state.path)
        return VariationalState(model, path, outcome, n_iter, bound, objective, gain)

    def cut_off(self, state: VariationalState) -> VariationalState | None:
        return replace(state, outcome=Outcome.exhausted, bound=np.nan, objective=np.nan)
