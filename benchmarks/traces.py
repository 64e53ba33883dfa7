"""Passes one by one: how far from its optimum a fit is after each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.problems import FLOOR, Problem
from daskmix.algorithms.acceleration import Accelerated, LocalSteps, accelerated_steps
from daskmix.algorithms.base import Algorithm, Once, Outcome
from daskmix.algorithms.em import EM
from daskmix.block import Array, Missing
from daskmix.engines.dask import engine_for
from daskmix.engines.local import one_blas_thread
from daskmix.kernels import Frame
from daskmix.mixture import Mixture
from daskmix.passes import passes
from daskmix.rows import Rows, from_memory

MOST = 2000  # passes
LEAST = 1e-12  # gap that is still to be closed
STILL = 1e-10  # gain of a pass: then EM has come to its end


@dataclass(frozen=True)
class Trace:
    """The mean log-likelihood of the model of each pass."""

    values: Array  # (passes,)
    rejected: int
    model: Mixture

    def until(self, gap: float, top: float) -> float:
        """Passes that led to the first model so near to the top; infinite where there is none.

        What a model is worth becomes known in the pass after.
        """
        near = np.flatnonzero(self.values >= top - gap)
        return float(near[0]) if len(near) else np.inf


def rows_of(x: Array) -> Rows:
    return from_memory([x], 1, None, Missing.trust)


def em(d: int, max_iter: int = MOST) -> EM:
    """EM on rows as they are."""
    return EM(Frame(np.zeros(d), np.ones(d)), np.dtype(np.float64), np.full(d, FLOOR), 0.0, max_iter)


def with_sample(x: Array, size: int, steps: int, seed: int) -> tuple[LocalSteps, Array]:
    """EM with steps on a uniform sample after each pass; and the sample."""
    some = x[np.sort(np.random.default_rng([7, seed]).choice(len(x), size, replace=False))]
    return LocalSteps(em(x.shape[1]), rows_of(some), answer, steps), some


def answer(question: Any, rows: Rows) -> Any:
    once = Once(question)
    (done,) = passes([once], rows, engine=engine_for(rows), states=[once.start()])
    return done.states[0].model


def trace(algorithm: Algorithm[Any, Any], x: Array, model: Mixture, enough: Callable[[list[float]], bool]) -> Trace:
    """Passes until their values are enough, or the algorithm is done."""
    rows, values, state = rows_of(x), [], algorithm.start(model)
    with one_blas_thread():
        for done in passes([algorithm], rows, engine=engine_for(rows), states=[state]):
            (state,) = done.states
            if state.outcome is not Outcome.running:
                break
            values.append(float(state.objective))
            if enough(values):
                break
    return Trace(np.array(values), getattr(state, "rejected", 0), state.model)


def optimum(problem: Problem, x: Array, model: Mixture) -> tuple[Trace, float]:
    """EM to its end, and the likelihood there."""
    d = x.shape[1]
    plain = trace(em(d), x, model, lambda values: len(values) > 1 and values[-1] - values[-2] < STILL)
    polished = trace(Accelerated(em(d, 60), LEAST), x, plain.model, lambda values: False)
    return plain, float(max(plain.values[-1], polished.values.max()))


def faster(algorithm: EM | LocalSteps, x: Array, model: Mixture, top: float, gap: float = 1e-7) -> Trace:
    """The algorithm, accelerated, until it is so near to the top or has come to its own end."""
    accelerated = (
        accelerated_steps(algorithm, LEAST) if isinstance(algorithm, LocalSteps) else Accelerated(algorithm, LEAST)
    )
    return trace(accelerated, x, model, lambda values: max(values) >= top - gap or len(values) >= MOST)
