"""Seconds, by turns: all contenders share the same noise."""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Self

from benchmarks.peers import Contender, PeerMissingError

SHORT = 1  # iterations of the short fit

Trial = Callable[[], float]


@dataclass(frozen=True)
class Turns:
    """Median seconds of those that could be timed, and why the others could not."""

    seconds: Mapping[str, float]
    absent: Mapping[str, str]

    def __or__(self, other: Self) -> Self:
        """Those of both."""
        return type(self)({**self.seconds, **other.seconds}, {**self.absent, **other.absent})

    def ratio(self, name: str, to: str) -> float:
        """How many times as long `name` takes as `to`; NaN where one of them is absent."""
        return self.seconds.get(name, float("nan")) / self.seconds.get(to, float("nan"))


def by_turns(trials: Mapping[str, Trial], repeats: int) -> Turns:
    """Every trial once in each turn; the first turn, which compiles and warms up, does not count."""
    seconds: dict[str, list[float]] = {}
    absent: dict[str, str] = {}
    for turn in range(repeats + 1):
        for name, trial in trials.items():
            if name in absent:
                continue
            try:
                once = trial()
            except PeerMissingError as error:
                absent[name] = str(error)
                continue
            if turn:
                seconds.setdefault(name, []).append(once)
    return Turns({name: median(all_) for name, all_ in seconds.items()}, absent)


def fit_seconds(fit: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a fit, and what was fitted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fit was cut short is meant
        began = time.perf_counter()
        estimator = fit()
        return time.perf_counter() - began, estimator


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds of anything."""
    return fit_seconds(work)[0]


def iteration_seconds(contender: Contender, iterations: int, threads: int) -> float:
    """Seconds per iteration, by the difference of a long fit and a short one: what is done once cancels."""
    with contender.limit(threads):
        return (_exactly(contender, SHORT + iterations) - _exactly(contender, SHORT)) / iterations


def _exactly(contender: Contender, iterations: int) -> float:
    seconds, estimator = fit_seconds(lambda: contender.fit(iterations))
    # A fit at its fixed point leaves out what others do last, and its difference would say nothing.
    if estimator.n_iter_ != iterations:
        raise RuntimeError(f"{contender.name} stopped after {estimator.n_iter_} of {iterations} iterations")
    return seconds


def pass_seconds(fit: Callable[[], Any]) -> float:
    """Median seconds of the passes of a fit of daskmix, without the survey and the first: those that a cache serves."""
    _, estimator = fit_seconds(fit)
    return median(record["seconds"] for record in iterations_of(estimator)[1:])


def iterations_of(estimator: Any) -> list[Mapping[str, Any]]:
    """The records of the passes that iterate."""
    return [record for record in estimator.history_ if record["what"] in ("lloyd", "em")]
