"""Fewer passes: a model is guessed from the last steps, or found on a sample, and kept if it proves better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daskmix.algorithms.base import Algorithm, Iteration, Outcome, Reports
from daskmix.algorithms.em import EM, EMState
from daskmix.algorithms.lloyd import Lloyd
from daskmix.block import Array
from daskmix.errors import CollapsedComponentError
from daskmix.mixture import Mixture
from daskmix.moments import Moments, corrected
from daskmix.reduction import Reduction

ALIKE = 1e-7  # of the largest: moves that differ by less from those before add only noise
LEAST_CAP = 1.0001
SETTLED = 2  # passes in a row that promise less than the tolerance


def saddle_free_step(moves: Array, image_moves: Array, residual: Array, cap: float) -> tuple[Array, float]:
    """Coefficients of the image moves whose sum, added to the image, is the next guess; the largest factor used.

    Anderson acceleration of type I on moves (m, p) of the last points and of their images, newest last. In the space of
    the moves the Hessian I - J is made symmetric; as in saddle-free Newton (Dauphin et al. 2014) its eigenvalues count
    by their size, so that a saddle is left and not approached, and none for less than 1 / cap.
    """
    q, r = np.linalg.qr(moves.T)
    sizes = np.abs(np.diagonal(r))
    if not sizes.max() > 0:
        raise np.linalg.LinAlgError("the moves vanish in the metric")
    kept = np.flatnonzero(sizes > ALIKE * sizes.max())
    if len(kept) < len(moves):
        q, r = np.linalg.qr(moves[kept].T)
    inverse = np.linalg.inv(r)
    hessian = np.eye(len(kept)) - q.T @ image_moves[kept].T @ inverse
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    values = np.maximum(np.abs(values), 1.0 / cap)
    coefficients = np.zeros(len(moves))
    coefficients[kept] = inverse @ (vectors @ ((vectors.T @ (q.T @ residual)) / values))
    return coefficients, float(1.0 / values.min())


@dataclass(frozen=True)
class AcceleratedState(Reports):
    """A state of the algorithm that is accelerated, and the last points."""

    inner: Any  # its model is what the next pass asks about
    cap: float  # on how far the next guess may go, as a multiple of a step
    points: Array  # (m, p) coordinates of the last models that were kept, newest last
    images: Array  # (m, p) of where they lead to
    safe: Any = None  # the image of the last model that was kept
    proposed: bool = False  # whether the model may be worse than the last that was kept
    guessed: bool = False  # whether it was extrapolated
    reach: float = 1.0  # the largest factor of that extrapolation
    value: float = -np.inf  # of the best model that was kept
    gap: float = np.nan  # what is to be gained yet, as estimated after the last pass
    small: int = 0  # passes in a row that promised little
    rejected: int = 0  # models that proved worse

    @property
    def model(self) -> Any:
        return self.inner.model


@dataclass(frozen=True)
class Accelerated(Algorithm[AcceleratedState, Any]):
    """Saddle-free Anderson acceleration: guess ahead, and go back to the last model's image where that proves worse.

    The image is never worse than its model, so at most a pass is lost. It ends when twice in a row both the estimated
    gap and the gain of the last pass are below `gap_tol`, with the image of the last model, which is then measured.
    """

    algorithm: Iteration[Any, Any]
    gap_tol: float = 1e-5
    memory: int = 3  # moves
    cap: float = 4.0
    up: float = 4.0
    down: float = 4.0
    creep: float = 1.5  # of the cap, for each own step that was taken
    most: float = 1e6
    kept: int = 3  # points, after a guess that proved worse

    def start(self, model: Any = None) -> AcceleratedState:
        nothing = np.empty((0, 0))
        return AcceleratedState(self.algorithm.start(model), self.cap, nothing, nothing)

    def ask(self, state: AcceleratedState) -> Reduction[Any]:
        return self.algorithm.ask(state.inner)

    def tell(self, state: AcceleratedState, answer: Any) -> AcceleratedState:
        told = self.algorithm.tell(state.inner, answer)
        if state.inner.settled:
            return replace(state, inner=told)
        value = self.algorithm.value(state.inner, answer)
        worse = not value >= state.value - self.algorithm.noise(state.inner)
        if state.proposed and (worse or self.algorithm.lost(told)):
            return self._back(state, told)
        if told.outcome is not Outcome.running:
            return replace(state, inner=told, gap=np.nan if told.outcome is Outcome.failed else 0.0)
        return self._onward(state, told, value)

    def cut_off(self, state: AcceleratedState) -> AcceleratedState | None:
        # A guess that nothing is known of yet is no better than what it was guessed from.
        inner = self.algorithm.cut_off(self.algorithm.at(state.inner, state.safe) if state.proposed else state.inner)
        return None if inner is None else replace(state, inner=inner)

    def _back(self, state: AcceleratedState, told: Any) -> AcceleratedState:
        """The pass is lost: on from the image of the last model that was kept."""
        inner = self.algorithm.back(state.inner, told, state.safe)
        if not inner.settled and inner.n_iter >= self.algorithm.max_iter:
            inner = self.algorithm.settle(inner, Outcome.exhausted)
        now = replace(state, inner=inner, proposed=False, guessed=False, rejected=state.rejected + 1)
        if not state.guessed:
            return replace(
                now, inner=self.algorithm.discouraged(inner), points=state.points[:0], images=state.images[:0]
            )
        cap = max(LEAST_CAP, min(state.cap, state.reach) / self.down)
        return replace(now, cap=cap, points=state.points[-self.kept :], images=state.images[-self.kept :])

    def _onward(self, state: AcceleratedState, told: Any, value: float) -> AcceleratedState:
        """The pass is kept: the next model is guessed from the last points."""
        image, target = self.algorithm.own_step(told), told.model
        plain = self.algorithm.at(told, image)
        best = max(value, state.value)  # within rounding: losses must not add up
        now = replace(state, inner=plain, cap=self._cap(state), safe=image, value=best, proposed=False, guessed=False)
        if told.settled:
            return now
        if not self.algorithm.same_map(state.inner, told):
            # What was is of another map; what comes cannot be compared with it.
            points, images = state.points[:0], state.images[:0]
            return replace(now, points=points, images=images, value=-np.inf, small=0, gap=np.nan)
        now = self._remembered(now, state.inner.model.coordinates(), target.coordinates())
        guess = self._guess(now, told)
        if guess is None:
            now = replace(now, cap=max(LEAST_CAP, now.cap / self.down), gap=np.nan, small=0)
        top, reach = guess or (target, 1.0)
        if guess and len(now.points) > 1:
            gap = self.algorithm.gap(state.inner, told, top)
            small = state.small + 1 if max(abs(gap), value - state.value) < self.gap_tol else 0
            now = replace(now, gap=gap, small=small)
        if now.small >= SETTLED:
            return replace(now, inner=self.algorithm.settle(plain, Outcome.converged))
        proposal = self.algorithm.at(told, top)
        if top is image or not self.algorithm.same_map(told, proposal):
            return now
        return replace(now, inner=proposal, proposed=True, guessed=top is not target, reach=reach)

    def _cap(self, state: AcceleratedState) -> float:
        """How far the next guess may go: farther after one that was kept although it went as far as it could."""
        if not state.guessed:
            return min(state.cap * self.creep, self.most)
        capped = state.reach > state.cap * (1 - 1e-9)  # but for rounding, so that this is no matter of luck
        return min(state.cap * self.up, self.most) if capped else state.cap

    def _remembered(self, state: AcceleratedState, point: Array, image: Array) -> AcceleratedState:
        if not len(state.points):
            return replace(state, points=point[None], images=image[None])
        points = np.vstack([state.points, point])[-self.memory - 1 :]
        return replace(state, points=points, images=np.vstack([state.images, image])[-self.memory - 1 :])

    def _guess(self, state: AcceleratedState, told: Any) -> tuple[Any, float] | None:
        """Where the last moves lead to, and the largest factor in it; told's own model without moves.

        None where they lead to no model.
        """
        if len(state.points) < 2:
            return told.model, 1.0
        moves, image_moves = np.diff(state.points, axis=0), np.diff(state.images, axis=0)
        if not (moves.any() and image_moves[-1].any()):
            return told.model, 1.0  # the image has come to rest: it remains to be seen whether it is its own
        residual = state.images[-1] - state.points[-1]
        m = len(moves)
        whitened = self.algorithm.in_metric(told, np.vstack([moves, image_moves, residual]))
        try:
            coefficients, reach = saddle_free_step(whitened[:m], whitened[m : 2 * m], whitened[-1], state.cap)
            return told.model.at(state.images[-1] + coefficients @ image_moves), reach
        except (np.linalg.LinAlgError, CollapsedComponentError):
            return None


def accelerated_lloyd(lloyd: Lloyd, gap_tol: float) -> Accelerated:
    """Lloyd's iteration, accelerated: its map is made of pieces, so guesses do not go as far as EM's."""
    return Accelerated(replace(lloyd, tol=0.0), gap_tol, cap=2.0, up=2.0, creep=1.0, kept=1)


def accelerated_steps(steps: LocalSteps, gap_tol: float) -> Accelerated:
    """Steps on a sample, accelerated: they go far by themselves, and a guess that proves worse costs all of them.

    With what suits EM up to twice as many passes were rejected.
    """
    return Accelerated(steps, gap_tol, cap=3.0, up=1.5, creep=1.2)


@dataclass(frozen=True)
class LocalState(Reports):
    """A state of EM, and where further steps on a sample lead to."""

    inner: EMState  # its model is EM's own step
    model: Mixture
    steps: int  # to take after the next pass, EM's own among them


@dataclass(frozen=True)
class LocalSteps(Iteration[LocalState, Moments]):
    """EM whose every pass is followed by steps on a sample of the rows, corrected by what all rows have said.

    The statistics of a step are those of all rows at the model that they were asked about, plus what the sample sees
    change since then: a control variate. So the first step is EM's own, and the fixed points are those of all rows. Few
    steps are taken, for in directions that the sample cannot tell from noise more would only add that.
    """

    algorithm: EM
    sample: Any
    reduce: Callable[[Reduction[Moments], Any], Moments]  # the sample's answer to a question
    most: int  # steps, EM's own among them

    @property
    def max_iter(self) -> int:
        return self.algorithm.max_iter

    def start(self, model: Mixture | None = None) -> LocalState:
        inner = self.algorithm.start(model)
        return LocalState(inner, inner.model, self.most)

    def ask(self, state: LocalState) -> Reduction[Moments]:
        return self.algorithm.ask(self._asking(state))

    def tell(self, state: LocalState, answer: Moments) -> LocalState:
        before = self._asking(state)
        told = self.algorithm.tell(before, answer)
        if told.jumped or told.outcome is not Outcome.running or told.settled or state.steps <= 1:
            return LocalState(told, told.model, state.steps)
        model, taken = self._further(before, told, answer, state.steps)
        return LocalState(told, model, state.steps if taken == state.steps else max(1, taken // 2))

    def cut_off(self, state: LocalState) -> LocalState | None:
        inner = self.algorithm.cut_off(self._asking(state))
        return None if inner is None else replace(state, inner=inner)

    def _asking(self, state: LocalState) -> EMState:
        return state.inner if state.model is state.inner.model else self.algorithm.at(state.inner, state.model)

    def _further(self, before: EMState, told: EMState, answer: Moments, steps: int) -> tuple[Mixture, int]:
        """The model after so many steps, or as many as there could be."""
        there = self.reduce(self.algorithm.ask(before), self.sample)
        model = told.model
        for taken in range(1, steps):
            here = self.reduce(self.algorithm.ask(self.algorithm.at(told, model)), self.sample)
            try:
                model = self.algorithm.image(corrected(model.structure.order, answer, here, there), model)
            except CollapsedComponentError:
                return model, taken
        return model, steps

    def own_step(self, state: LocalState) -> Mixture:
        return state.inner.model

    def discouraged(self, state: LocalState) -> LocalState:
        return replace(state, steps=max(1, state.steps // 4))

    def settle(self, state: LocalState, outcome: Outcome) -> LocalState:
        return replace(state, inner=self.algorithm.settle(self._asking(state), outcome))

    def at(self, state: LocalState, model: Mixture) -> LocalState:
        return replace(state, inner=self.algorithm.at(state.inner, model), model=model)

    def back(self, before: LocalState, told: LocalState, model: Mixture) -> LocalState:
        return replace(told, inner=self.algorithm.back(before.inner, told.inner, model), model=model)

    def lost(self, told: LocalState) -> bool:
        return self.algorithm.lost(told.inner)

    def same_map(self, before: LocalState, after: LocalState) -> bool:
        return before.steps == after.steps and self.algorithm.same_map(before.inner, after.inner)

    def value(self, state: LocalState, answer: Moments) -> float:
        return self.algorithm.value(self._asking(state), answer)

    def noise(self, state: LocalState) -> float:
        return self.algorithm.noise(self._asking(state))

    def in_metric(self, state: LocalState, moves: Array) -> Array:
        return self.algorithm.in_metric(state.inner, moves)

    def gap(self, before: LocalState, told: LocalState, top: Mixture) -> float:
        return self.algorithm.gap(self._asking(before), told.inner, top)
