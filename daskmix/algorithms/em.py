"""Expectation-maximisation for Gaussian mixtures (Dempster, Laird & Rubin 1977)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from daskmix.algorithms.base import Iteration, Outcome
from daskmix.block import Array
from daskmix.errors import CollapsedComponentError
from daskmix.kernels import Frame
from daskmix.mixture import Mixture, estimate
from daskmix.moments import Moments
from daskmix.reduction import Reduction
from daskmix.sharing import SOFT, Explain, Sharing

LEAST_NOISE = 1e-9  # of a mean log-likelihood
LEAST_MASS = 1e-10  # of a component, below which it has no rows
MOST_RESTARTS = 3  # for each component, of all together


class OnCollapse(Enum):
    """What becomes of a component that has too few rows, or whose covariance is singular."""

    keep = "keep"  # without rows it stays where it was; without a covariance the fit fails
    restart = "restart"  # it gets half of the component that has most
    drop = "drop"
    fail = "raise"


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
    jumped: bool = False  # whether the model is no image of the one before, of which components collapsed
    singular: bool = False  # whether that was for want of a covariance, which guesses may bring about
    restarts: int = 0  # of components
    notes: tuple[str, ...] = ()  # what became of components


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
    on_collapse: OnCollapse = OnCollapse.keep
    min_weight: float = 0.0  # share of the rows below which a component has collapsed

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
        asked = replace(state, n_iter=state.n_iter + 1, objective=objective)
        light = self._light(state.model, answer)
        if len(light):
            return self._after(light, self._too_light(light, answer), asked)
        try:
            model = state.model.learn(answer, self.floor)
        except CollapsedComponentError as error:
            return self._after(np.array(error.components, dtype=np.int64), str(error), replace(asked, singular=True))
        sharing = self.sharing(state.n_iter)
        comparable = not state.jumped and (state.n_iter == 0 or sharing == self.sharing(state.n_iter - 1))
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
            jumped=False,
            singular=False,
        )
        lasts = sharing.seed is None and state.n_iter + 1 >= len(self.sharings)
        if lasts and (abs(gain) < self.tol or rests):
            return replace(now, settled=Outcome.converged)
        return replace(now, settled=Outcome.exhausted) if now.n_iter >= self.max_iter else now

    def _light(self, model: Mixture, answer: Moments) -> Array:
        """Which components have collapsed for want of rows: their numbers."""
        nothing, total = np.empty(0, dtype=np.int64), answer.mass.sum()
        if self.on_collapse is OnCollapse.keep:
            return nothing
        shares = np.where(model.family.rigid(model.shape[0]), np.inf, answer.own / total)
        light = np.flatnonzero(shares < max(self.min_weight, LEAST_MASS))
        if self.on_collapse is not OnCollapse.drop or not len(light):
            return light
        # Halves of one cluster may both be light: what the lightest leaves may be enough for the others.
        empty = np.flatnonzero(shares < LEAST_MASS)
        return empty if len(empty) else light[[shares[light].argmin()]]

    def _too_light(self, light: Array, answer: Moments) -> str:
        shares = ", ".join(f"{share:.3g}" for share in answer.own[light] / answer.mass.sum())
        return (
            f"component {', '.join(map(str, light))} collapsed: the share of the rows is {shares}, below "
            f"min_weight={self.min_weight:g}; ask for fewer components, or start from other means"
        )

    def _after(self, which: Array, why: str, state: EMState) -> EMState:
        """On without the components that collapsed, or with others in their place, where that is wanted and helps."""
        model, drops = state.model, self.on_collapse is OnCollapse.drop
        k, restarts = model.shape[0], state.restarts + len(which)
        hopeless = len(which) in (0, k) or (not drops and restarts > MOST_RESTARTS * k)
        if hopeless or self.on_collapse in (OnCollapse.keep, OnCollapse.fail):
            return replace(state, outcome=Outcome.failed, why=why)
        note = f"{why} ({'dropped' if drops else 'restarted'} after iteration {state.n_iter})"
        model = model.without(which) if drops else model.restarted(which)
        now = replace(self.at(state, model), gain=np.nan, gap=np.nan, jumped=True, restarts=restarts)
        now = replace(now, notes=(*state.notes, note))
        return replace(now, settled=Outcome.exhausted) if now.n_iter >= self.max_iter else now

    def cut_off(self, state: EMState) -> EMState | None:
        return replace(state, outcome=Outcome.exhausted, score=np.nan, certainty=np.nan)

    def value(self, state: EMState, answer: Moments) -> float:
        return (answer.score + state.model.log_prior(self.floor)) / float(answer.mass.sum())

    def noise(self, state: EMState) -> float:
        if state.path == "centred":
            return LEAST_NOISE
        return max(LEAST_NOISE, state.model.product_error * float(np.finfo(state.path).eps) / 2)

    def at(self, state: EMState, model: Mixture) -> EMState:
        return replace(state, model=model, path=model.path(self.dtype, state.path), outcome=Outcome.running)

    def back(self, before: EMState, told: EMState, model: Mixture) -> EMState:
        # What became of components is forgotten, too.
        forgotten = replace(told, jumped=False, singular=False, restarts=before.restarts, notes=before.notes)
        return replace(self.at(forgotten, model), certainty=before.certainty, why="")

    def lost(self, told: EMState) -> bool:
        return told.outcome is Outcome.failed or told.singular

    def same_map(self, before: EMState, after: EMState) -> bool:
        return before.path == after.path and not after.jumped

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
        if not (moments.own > LEAST_MASS * moments.mass.sum()).all():
            raise CollapsedComponentError(f"component {int(moments.own.argmin())} has lost all its rows")
        return estimate(moments, like.family, self.floor, like.covariance)


def _aitken(before: float, gain: float) -> float:
    """The sum of all gains to come if they go on to shrink by the same factor (Boehning et al. 1994)."""
    shrinks = 0 < gain < before < np.inf
    return gain * gain / (before - gain) if shrinks else np.nan


def _same(a: Mixture, b: Mixture) -> bool:
    return (
        np.array_equal(a.weights, b.weights)
        and np.array_equal(a.means, b.means)
        and np.array_equal(a.covariance.values, b.covariance.values)
        and (a.nu is None or b.nu is None or np.array_equal(a.nu, b.nu))
    )
