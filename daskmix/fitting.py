"""What every fit does: a first look at all rows, then passes until all models are done, with a record of each."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self, TypeVar

import numpy as np

from daskmix.algorithms.base import Algorithm, Once, Outcome
from daskmix.block import HEAVIEST, Array, Missing
from daskmix.checkpoint import Checkpoint, Provenance, Standing
from daskmix.device import GpuEngine
from daskmix.engines.dask import engine_for
from daskmix.engines.keep import NOTHING, Keep
from daskmix.engines.local import one_blas_thread
from daskmix.engines.patience import USUAL, Patience
from daskmix.errors import CollapsedComponentWarning, DamagedError, InputError, ScratchFullWarning
from daskmix.hooks import Callback, fingerprint
from daskmix.passes import Pass, Tally, passes
from daskmix.progress import Progress
from daskmix.progress.view import known
from daskmix.reduction import Reduction, Together
from daskmix.rows import Rows, from_memory
from daskmix.sampling import OfKnown, Sample, Summarise, Summary, UniformSample

A = TypeVar("A")

SAMPLE_BYTES = 64 << 20
SAMPLE_TASK = 1 << 20  # bytes of a task on the sample, which are computed on many times: all threads shall help
# What is less, but not nothing, vanishes when it is squared: weights, and how far values are apart at most.
LIGHTEST, CLOSEST, CLOSEST_SINGLE = 1e-40, 1e-130, 1e-36
SPARE = 4  # times the rows of the sample are drawn where some may be left out
NOTHING_READ = Tally(0, 0, 0)


def sample_size(rows: Rows, k: int, parameters: int) -> int:
    """How many rows to keep in memory: enough for the models that start there, at most 64 MiB of numbers."""
    fits = SAMPLE_BYTES // (8 * rows.d)
    return max(k, min(fits, max(100_000, 200 * k, 50 * parameters)))


@dataclass
class Fit:
    """One fit under way: its rows, its engine and what has been read so far."""

    rows: Rows
    hooks: tuple[Callback, ...] = ()
    keep: Keep = NOTHING  # where decoded chunks may stay
    device: str | None = None
    gaps: bool = False  # whether some rows may be left out, or weigh nothing
    history: list[dict[str, Any]] = field(default_factory=list)
    planned: dict[str, int | None] = field(default_factory=dict)  # bytes of a task and of a worker, at most
    sample_read: Tally = NOTHING_READ  # since the last pass
    sampling_seconds: float = 0.0  # that this took
    mean: Any = None  # of all rows, once they were surveyed
    covariance: Any = None  # of all rows, once it was asked for
    known_means: Any = None  # (k, d) of the rows whose component is known, NaN where there are none
    samples: dict[tuple[int, int], Rows] = field(default_factory=dict)  # parts of samples, shared by models
    checkpoint: Checkpoint | None = None
    made_of: Provenance | None = None  # what tells outputs of this fit from others
    states: Sequence[Any] = ()  # of the stage that is under way
    interrupt: KeyboardInterrupt | None = None
    patience: Patience = USUAL  # with what goes wrong on a cluster
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        engine = engine_for(self.rows, self.keep, self.patience, self.progress.going)
        self.engine = GpuEngine(engine) if self.device == "cuda" else engine

    def __enter__(self) -> Self:
        # The algebra between passes is too small for more threads, and its bits must not depend on their number.
        self._ending = ExitStack()
        self._ending.enter_context(one_blas_thread())
        # At once, and not when the last traceback that knows this fit is collected.
        self._ending.callback(self.engine.close)
        return self

    def __exit__(self, kind: Any, failure: BaseException | None, traceback: Any) -> None:
        try:
            self.progress.ended(failure or self.interrupt)
        finally:
            self._ending.close()

    def survey(self, k: int, size: int, seed: int) -> tuple[Summary, Sample]:
        """The first pass: where the rows are, whether they are clean, and some of them.

        Raises
        ------
        InputError
            Where a row or weight is unusable, all weights are zero, or there are fewer rows than models need.
        """
        self._enough(self.rows.total, k)
        draw = partial(UniformSample.of, size, seed, self.rows.d, self.rows.dtype)
        first = draw(self.rows.total, SPARE if self.gaps else 1)
        questions: tuple[Reduction[Any], ...] = (Summarise(self.rows.d), first)
        labels = self.rows.parts[0].labels if self.rows.parts else 0
        if labels:
            questions += (OfKnown(labels, self.rows.d),)
        summary, sample, *known = self.ask(Together(questions), "survey")
        if known:
            self.known_means = known[0].means()
        if summary.rows == 0 and summary.missing:
            raise InputError(f"every one of {summary.missing} rows holds NaN; nothing is left to fit")
        if summary.rows == 0 and self.history[-1]["rows"]:
            raise InputError("sample_weight is zero for every row; nothing is left to fit")
        self._enough(summary.rows, k)
        if len(sample) < min(size, summary.rows):
            # More rows were left out, or weigh nothing, than the draw allowed for.
            sample = self.ask(draw(summary.rows), "sample")
        if (summary.seen == 0).any():
            feature = int(summary.seen.argmin())
            raise InputError(f"feature {feature} is missing in every row that counts; leave it out")
        self._in_reach(summary)
        self.mean = summary.mean
        if summary.missing == 0:
            self.rows = replace(self.rows, missing=Missing.gaps if summary.gaps else Missing.trust)
        return summary, sample

    def _in_reach(self, summary: Summary) -> None:
        """Refuse what would vanish, or overflow, when it is squared."""
        if not LIGHTEST <= summary.mass <= HEAVIEST:
            raise InputError(
                f"sample_weight sums to {summary.mass:g}; multiply all weights by one number, so that their sum is "
                f"between {LIGHTEST:g} and {HEAVIEST:g}"
            )
        least = CLOSEST_SINGLE if self.rows.dtype == np.float32 else CLOSEST
        apart = summary.high.astype(np.float64) - summary.low
        close = (apart > 0) & (apart < least)
        if close.any():
            j = int(close.argmax())
            raise InputError(
                f"values of feature {j} differ by {apart[j]:g} at most, whose squares are beyond what numbers of "
                f"{self.rows.dtype} can hold; multiply it by a power of ten first, in float64"
            )

    def _enough(self, rows: int | None, k: int) -> None:
        if rows == 0:
            raise InputError("Found array with 0 sample(s): X has no rows; at least 1 is required")
        if rows is not None and rows < k:
            raise InputError(f"n_samples={rows} should be >= {k}, the number of clusters; ask for fewer clusters")

    def ask(self, question: Reduction[Any], what: str) -> Any:
        """One question, one pass."""
        once = Once(question)
        (state,) = self.run([once], [once.start()], what)
        return state.model

    def run_to_models(
        self, algorithms: Sequence[Algorithm[Any, Any]], states: Sequence[Any], what: str, measure: str
    ) -> Any:
        """The same; where the user interrupts it the best state so far alone, if its model can be used.

        What is to be done with a model is done, then `end` raises the interrupt.
        """
        try:
            return self.run(algorithms, states, what, measure)
        except KeyboardInterrupt as interrupt:
            best = self._cut_off(algorithms, measure)
            if best is None:
                raise
            self.interrupt = interrupt
            return [best]

    def end(self) -> None:
        """Raise the interrupt that ended the passes, if one did."""
        if self.interrupt is not None:
            raise self.interrupt

    def _cut_off(self, algorithms: Sequence[Algorithm[Any, Any]], measure: str) -> Any:
        sign = 1.0 if measure == "inertia" else -1.0
        each = zip(algorithms, self.states, strict=False)  # there are none before the first pass
        left = [(a, state) for a, state in each if state.outcome is not Outcome.failed]
        if not left:
            return None
        algorithm, best = min(left, key=lambda pair: sign * pair[1].objective)
        return algorithm.cut_off(best)

    def run(
        self, algorithms: Sequence[Algorithm[Any, Any]], states: Sequence[Any], what: str, measure: str = ""
    ) -> Any:
        """Passes until every algorithm is done; the final states. A stage that was begun before goes on."""
        self.states = states = self._begun(states)
        self.progress.stage(what, len(self.history))
        for done in passes(algorithms, self.rows, engine=self.engine, states=states):
            self.states = states = done.states
            self._warn_of_scratch(done.read.refused)
            record = self._recorded(done, what, measure)
            self._committed(what, states)
            if self.checkpoint:
                self.progress.passed(record, self.checkpoint.last, str(self.checkpoint.vault))
            else:
                self.progress.passed(record)
            for hook in self.hooks:
                hook(record)
        return states

    def _recorded(self, done: Pass, what: str, measure: str) -> dict[str, Any]:
        """What the history has of a pass from now on."""
        live = [done.states[i] for i in done.live]
        objectives = [known(getattr(state, "objective", None)) for state in live]
        record = {
            "pass": len(self.history) + 1,
            "what": what,
            "measure": measure,
            "objective": _best(objectives, measure),
            "gap": _gap(live, objectives, measure),
            **(_starts(done.states, done.live) if measure else {}),
            "live": sum(getattr(state, "asked", 1) for state in live),
            "path": getattr(live[0], "path", ""),
            "pruned": _pruned(live, done.read.rows),
            "seconds": done.seconds,
            "chunks": done.read.chunks,
            "rows": done.read.rows,
            "bytes": done.read.bytes,
            "decoded": done.read.decoded,
            "refused": done.read.refused,
            "sample_rows": self.sample_read.rows,
            "sample_seconds": self.sampling_seconds,
        }
        self.sample_read, self.sampling_seconds = NOTHING_READ, 0.0
        if not self.history:
            record |= self.planned
            record["fingerprint"] = fingerprint() | ({} if self.device is None else {"device": self.device})
        self.history.append(record)
        return record

    def _warn_of_scratch(self, refused: int) -> None:
        """Once for each fit."""
        if refused and not any(record["refused"] for record in self.history):
            warnings.warn(
                f"scratch could not be written for {refused} chunks (a full disk, a quota, or no such folder there), "
                "so they are decoded again in every pass; make room there, or pass run=Run(scratch=...), another "
                "folder",
                ScratchFullWarning,
                stacklevel=5,
            )

    def _begun(self, states: Sequence[Any]) -> Sequence[Any]:
        """The states that the next stage goes on from: those that a checkpoint has, else these."""
        standing = self.checkpoint.begin() if self.checkpoint else None
        if standing is None:
            return states
        if [type(state) for state in standing.states] != [type(state) for state in states]:
            raise DamagedError(
                "the checkpoint holds states of another kind than this fit has; delete it, to begin anew"
            )
        self.history[:] = map(dict, standing.history)
        self.sample_read, self.sampling_seconds = standing.sample_read, standing.sampling_seconds
        return standing.states

    def _committed(self, what: str, states: Sequence[Any]) -> None:
        if self.checkpoint:
            standing = Standing(tuple(states), tuple(self.history), self.sample_read, self.sampling_seconds)
            self.checkpoint.note(what, standing, ends=all(s.outcome is not Outcome.running for s in states))

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """What is done meanwhile is work on the sample; the next record says how long it took."""
        began = time.perf_counter()
        self.progress.stage("on the sample", len(self.history))
        try:
            yield
        finally:
            self.sampling_seconds += time.perf_counter() - began

    def on_sample(self, algorithms: Sequence[Algorithm[Any, Any]], states: Sequence[Any], rows: Rows) -> Any:
        """The final states of algorithms on rows of a sample, which cost no pass."""
        with warnings.catch_warnings():
            # On few rows components collapse which have enough among all; such a start loses the race.
            warnings.simplefilter("ignore", CollapsedComponentWarning)
            for done in passes(algorithms, rows, engine=engine_for(rows), states=states):
                states = done.states
                self.sample_read += done.read
        return states

    def ask_sample(self, question: Reduction[A], rows: Rows) -> A:
        """What rows of a sample answer."""
        with self.sampling():
            once = Once(question)
            (state,) = self.on_sample([once], [once.start()], rows)
        answer: A = state.model
        return answer

    def part_of(self, sample: Sample, size: int) -> Rows:
        """So many rows of a sample, the same object for all models."""
        key = id(sample), size
        if key not in self.samples:
            self.samples[key] = sampled(sample.best(size))
        return self.samples[key]

    @property
    def bytes_read(self) -> int:
        return sum(record["decoded"] for record in self.history)


def _starts(states: Sequence[Any], live: Sequence[int]) -> dict[str, list[float | None]]:
    """Objective and estimated gap of each start, None where it is done or they are not known."""
    names = {"objectives": "objective", "gaps": "gap"}
    each = [states[i] if i in live else None for i in range(len(states))]
    return {many: [known(getattr(state, one, None)) for state in each] for many, one in names.items()}


def _best(objectives: Sequence[float | None], measure: str) -> float | None:
    measured = [o for o in objectives if o is not None]
    if not measured:
        return None
    return min(measured) if measure == "inertia" else max(measured)


def _gap(states: Sequence[Any], objectives: Sequence[float | None], measure: str) -> float | None:
    """What is estimated to be left to gain, by the best of all starts; None where nobody knows."""
    best = _best(objectives, measure)
    if best is None:
        return None
    return known(getattr(states[objectives.index(best)], "gap", None))


def _pruned(states: Sequence[Any], rows: int) -> float:
    """The share of all distances between rows and centres that a pass did not compute."""
    spared = sum(getattr(state, "spared", 0) for state in states)
    return spared / (rows * sum(state.model.k for state in states)) if spared else 0.0


def sampled(sample: Sample, x: Array | None = None) -> Rows:
    """The sample as rows, perhaps with other values."""
    weights, x = None if (sample.w == 1).all() else sample.w, sample.x if x is None else x
    missing = Missing.gaps if np.isnan(x).any() else Missing.trust
    k = int(sample.known.max(initial=-1)) + 1
    return from_memory([x], 1, weights, missing, SAMPLE_TASK, sample.known if k else None, k)
