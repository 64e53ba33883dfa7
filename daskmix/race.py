"""What is done on the sample before and between passes: as much of it as the passes are worth.

Everything follows from numbers of rows and parameters, never from a clock, so that it is the same wherever it runs. A
row of the sample costs what a row of a pass costs that is in memory; of rows that must be decoded the share is smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskmix.algorithms.base import Algorithm, Outcome
from daskmix.fitting import Fit, sampled
from daskmix.sampling import Sample

MOST_STARTS = 10_000  # that may be asked for
RACERS = (10, 3, 1)  # on each rung, at most
SEEDING = 0.8  # of a pass: rows that the race may visit
FEWEST, USUAL, MOST = 12, 30, 400  # passes of a racer on one rung
ROUGH, FINE = 1e-4, 1e-6  # gap that racers leave, and the winner
LOCAL = 0.1  # of a pass, for the local steps after it
ENOUGH, USEFUL = 50, 12  # rows for each parameter: to follow the sample far, to follow it at all
FEW, MOST_STEPS = 5, 100  # steps: where rows are few for the parameters, and of any number of rows


@dataclass(frozen=True)
class Rung:
    """Some of the racers, on some of the sample."""

    rows: int
    racers: int
    passes: int  # that each may take
    gap_tol: float


@dataclass(frozen=True)
class Raced:
    """How far a start has come, and how good it is on the rows that it has seen."""

    model: Any
    merit: float
    rows: int = 0


def ladder(total: int, size: int, least: int, starts: int = 0, whole: bool = False) -> tuple[Rung, ...]:
    """How starts race on a sample of `size` out of `total` rows, at least so many on each rung.

    As many starts as were asked for, or, with none, as many of ten as the passes are worth. The winner is solved on as
    many rows as they are worth; or all start, and the winner is solved, on the whole sample, whatever that costs.
    """
    if whole:
        racers = starts or RACERS[0]
        return (Rung(size, racers, USUAL, ROUGH),) * (racers > 1) + (Rung(size, 1, MOST, FINE),)
    budget = SEEDING * total / len(RACERS)
    least = min(size, least)
    rungs: list[Rung] = []
    for racers in RACERS:
        affordable = max(1, min(racers, int(budget / (FEWEST * least))))
        racers = min(affordable, rungs[-1].racers - 1) if rungs else starts or affordable
        rows = min(size, max(least, int(budget / (USUAL * racers))))
        passes = min(MOST, max(FEWEST, int(budget / (racers * rows))))
        rungs.append(Rung(rows, racers, passes, ROUGH if racers > 1 else FINE))
        if racers == 1:
            break
    return tuple(rungs)


def local_steps(total: int, size: int, parameters: int) -> tuple[int, int]:
    """Of how many rows of the sample, and how many steps between passes, EM's own among them; (0, 1) for none."""
    # The best number of steps grows as the root of the sample (measured: sqrt(rows) / 5).
    rows = min(size, int((5 * LOCAL * total) ** (2 / 3)))
    steps = min(MOST_STEPS, round(rows**0.5 / 5))
    if steps >= FEW and rows >= ENOUGH * parameters:
        return rows, steps
    rows = min(size, int(LOCAL * total / FEW))
    return (rows, FEW) if rows >= USEFUL * parameters else (0, 1)


def race(
    runner: Callable[[Rung], Algorithm[Any, Any]],
    models: Sequence[Any],
    sample: Sample,
    rungs: Sequence[Rung],
    fit: Fit,
    merit: Callable[[Any], float],
) -> list[Raced]:
    """All starts, the winner first: on each rung the best of the last one go on, on more rows.

    `merit` is what a state of the runner is worth for each unit of mass of its rows.
    """
    order = [Raced(model, -np.inf) for model in models]
    for rung in rungs:
        few = sample.best(rung.rows)
        algorithm, on, mass = runner(rung), order[: rung.racers], float(few.w.sum())
        ended = fit.on_sample([algorithm] * len(on), [algorithm.start(racer.model) for racer in on], sampled(few))
        # Those that collapsed had too few rows: they come last.
        went = [
            Raced(racer.model, -np.inf)
            if state.outcome is Outcome.failed
            else Raced(state.model, merit(state) / mass, len(few))
            for racer, state in zip(on, ended, strict=True)
        ]
        order[: rung.racers] = sorted(went, key=lambda racer: racer.merit, reverse=True)
    return order
