"""Expectation-maximisation for Gaussian mixtures (Dempster, Laird & Rubin 1977)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from daskmix.algorithms.base import Iteration, Outcome
from daskmix.block import Array
from daskmix.errors import CollapsedComponentError
from daskmix.kernels import Frame
from daskmix.mixture import SOFT, Explain, Mixture, Moments, Sharing
from daskmix.reduction import Reduction

LEAST_NOISE = 1e-9  # of a mean log-likelihood
LEAST_MASS = 1e-10  # of a component, below which it has no rows


@dataclass(frozen=True)
class EMState:
    model: Mixture
    path: str
    outcome: Outcome = Outcome.running
    n_iter: int = 0
    objective: float = -np.inf  # mean smoothed log-likelihood (and log prior) of the model of the last pass
    gain: float = np.nan  # of that over the pass before
    gap: float = np.nan  # what is to be gained yet, as the last two gains promise
    settled: Outcome | None = None  # the model is final, and why; only its likelihood is still to be measured
    score: float = np.nan  # sum of w * log p(x) of the final model, not smoothed
    certainty: float = np.nan  # sum of w * log of the largest responsibility, of the last model that was kept
    why: str = ""  # what failed, where the outcome is `failed`


@dataclass(frozen=True)
class EM(Iteration[EMState, Moments]):
    """Alternate E-step and M-step until the mean log-likelihood gains less than `tol`, then measure what came out.

    With rows that go to their likeliest component this is classification EM (Celeux & Govaert 1992), with temperatures
    that fall to 1 deterministic annealing (Ueda & Nakano 1998), with rows that go to a component drawn for each one
    stochastic EM (Celeux & Diebolt 1985), which never comes to rest.
    """

    frame: Frame
    dtype: np.dtype  # of the rows
    floor: Array  # (d,) smoothing, in the frame
    tol: float = 1e-3
    max_iter: int = 100
    sharings: tuple[Sharing, ...] = (SOFT,)  # of the first passes; the last goes on

    def sharing(self, n_iter: int) -> Sharing:
        """How the pass after so many shares rows out."""
        return self.sharings[min(n_iter, len(self.sharings) - 1)].again(n_iter)

    def start(self, model: Mixture | None = None) -> EMState:
        if model is None:
            raise ValueError("EM starts from a mixture")
        settled = Outcome.exhausted if self.max_iter == 0 else None
        return EMState(model, model.path(self.dtype), settled=settled)

    def ask(self, state: EMState) -> Reduction[Moments]:
        if state.settled:
            return Explain(state.model, self.frame, state.path, np.zeros_like(self.floor))
        return Explain(state.model, self.frame, state.path, self.floor, self.sharing(state.n_iter))

    def tell(self, state: EMState, answer: Moments) -> EMState:
        if state.settled:
            return replace(state, outcome=state.settled, score=answer.score, certainty=answer.certainty)
        objective = self.value(state, answer)
        try:
            model = state.model.learn(answer, self.floor)
        except CollapsedComponentError as error:
            return replace(state, outcome=Outcome.failed, n_iter=state.n_iter + 1, objective=objective, why=str(error))
        sharing = self.sharing(state.n_iter)
        comparable = state.n_iter == 0 or sharing == self.sharing(state.n_iter - 1)
        gain, rests = objective - state.objective if comparable else np.nan, _same(model, state.model)
        now = replace(
            state,
            model=model,
            path=model.path(self.dtype, state.path),
            n_iter=state.n_iter + 1,
            objective=objective,
            gain=gain,
            gap=0.0 if rests else _aitken(state.gain, gain),
            certainty=answer.certainty,
        )
        lasts = sharing.seed is None and state.n_iter + 1 >= len(self.sharings)
        if lasts and (abs(gain) < self.tol or rests):
            return replace(now, settled=Outcome.converged)
        return replace(now, settled=Outcome.exhausted) if now.n_iter >= self.max_iter else now

    def value(self, state: EMState, answer: Moments) -> float:
        return (answer.score + state.model.log_prior(self.floor)) / float(answer.mass.sum())

    def noise(self, state: EMState) -> float:
        if state.path == "centred":
            return LEAST_NOISE
        return max(LEAST_NOISE, state.model.product_error * float(np.finfo(state.path).eps) / 2)

    def at(self, state: EMState, model: Mixture) -> EMState:
        return replace(state, model=model, path=model.path(self.dtype, state.path), outcome=Outcome.running)

    def back(self, before: EMState, told: EMState, model: Mixture) -> EMState:
        return replace(self.at(told, model), certainty=before.certainty, why="")

    def same_map(self, before: EMState, after: EMState) -> bool:
        return before.path == after.path

    def in_metric(self, state: EMState, moves: Array) -> Array:
        return state.model.in_metric(moves)

    def gap(self, before: EMState, told: EMState, top: Mixture) -> float:
        # Half the Newton decrement: the gradient, E_image[s] - E_model[s], times the change of natural parameters.
        model, image = before.model, told.model
        gained = top.expected(image) - model.expected(image)
        return 0.5 * (gained - top.expected(model) + model.expected(model))

    def image(self, moments: Moments, like: Mixture) -> Mixture:
        """The M-step of moments that may be no one's.

        Raises
        ------
        CollapsedComponentError
            Where a component has no mass left, or a covariance is singular.
        """
        if not (moments.mass > LEAST_MASS * moments.mass.sum()).all():
            raise CollapsedComponentError(f"component {int(moments.mass.argmin())} has lost all its rows")
        return moments.estimate(like.family, self.floor, like.covariance)


def _aitken(before: float, gain: float) -> float:
    """The sum of all gains to come if they go on to shrink by the same factor (Boehning et al. 1994)."""
    shrinks = 0 < gain < before < np.inf
    return gain * gain / (before - gain) if shrinks else np.nan


def _same(a: Mixture, b: Mixture) -> bool:
    return (
        np.array_equal(a.weights, b.weights)
        and np.array_equal(a.means, b.means)
        and np.array_equal(a.covariance.values, b.covariance.values)
    )
