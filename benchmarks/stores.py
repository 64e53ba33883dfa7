"""Passes over rows on disk, against reading raw bytes and against decoding alone."""

from functools import partial

from benchmarks.cases import FULL, KMEANS, Case
from benchmarks.contenders import own
from benchmarks.peers import tasks_on
from benchmarks.report import Requirement, Section, at_most, ms, table, times
from benchmarks.settings import Settings
from benchmarks.storage import Stored, stored
from benchmarks.timing import Turns, by_turns, pass_seconds, seconds_of
from daskmix import Run

ITERATIONS = 5
CACHED, MAPPED = "zstd store, cached", "memory map of raw rows"
OFF, DECODE, COMPUTE = "zstd store, cache off", "decoding alone", "computing alone, rows in memory"

AGAINST_RAW = 1.25
AGAINST_DECODING = {KMEANS: 1.2, FULL: 1.1}

TEXT = """\
Seconds of a pass of daskmix, the median of those after the first iteration. The rows lie in a Zarr store (zstd, chunks
of 8 MiB) and raw in a file. Where it is cached, memory may hold half of the rows, and the rest goes to scratch on
the same disk. The memory map is a Dask array of slices of the raw file in the same chunks. Decoding alone reads every
chunk of the store through Dask on the same threads and drops it. All files were just written, so that the operating
system has them in memory: what is compared is the work of the processor, not the disk."""


def section(settings: Settings) -> Section:
    """K-means and the full mixture."""
    rows, required = [], []
    for case, chunks in (
        (Case(KMEANS, settings.rows(2_097_152), 32, 16, "float32"), 32),
        (Case(FULL, settings.rows(1_048_576), 16, 16, "float64"), 16),
    ):
        turns = measure(case, chunks, settings)
        rows += lines(case, turns)
        required += requirements(case, turns)
    return Section(
        "Passes over stores", TEXT, table(["a pass", "size", "ms", "to decoding alone"], rows), tuple(required)
    )


def measure(case: Case, chunks: int, settings: Settings) -> Turns:
    """One method."""
    with stored(case, chunks) as rows, tasks_on(settings.threads):
        return by_turns(trials(rows, settings), settings.repeats)


def trials(rows: Stored, settings: Settings) -> dict[str, partial[float]]:
    """All ways to the same rows."""
    case, x = rows.case, rows.case.data()
    scratch = rows.folder / "scratch"
    scratch.mkdir()
    cached = Run(cache="auto", cache_limit=case.nbytes // 2, scratch=scratch)
    passes = {
        CACHED: (rows.zstd, cached),
        MAPPED: (rows.mapped(), Run(cache="off")),
        OFF: (rows.zstd, Run(cache="off")),
        COMPUTE: (case.lazy(x, settings.threads), Run(cache="off")),
    }
    start = case.start(x)
    fits = {
        name: partial(pass_seconds, partial(own(case, start, ITERATIONS, run=run).fit, source))
        for name, (source, run) in passes.items()
    }
    return {**fits, DECODE: partial(seconds_of, rows.decode)}


def lines(case: Case, turns: Turns) -> list[list[str]]:
    """One for each way to the rows."""
    return [
        [f"{case.method}, {name}", str(case), ms(seconds), times(turns.ratio(name, DECODE))]
        for name, seconds in turns.seconds.items()
    ]


def requirements(case: Case, turns: Turns) -> tuple[Requirement, ...]:
    """Cached passes cost what raw ones do; decoding passes cost little more than decoding."""
    alone, what = turns.seconds[DECODE], "decoding alone"
    if case.method is FULL:
        alone, what = alone + turns.seconds[COMPUTE], "decoding alone and computing alone"
    return (
        at_most(f"{case.method}, {CACHED}, against a {MAPPED}, pass 2..n", AGAINST_RAW, turns.ratio(CACHED, MAPPED)),
        at_most(f"{case.method}, {OFF}, against {what}", AGAINST_DECODING[case.method], turns.seconds[OFF] / alone),
    )
