"""What limits a pass, on paper and by simulation: measure the constants of the cost model, check it, predict.

`python -m benchmarks.simulate --write docs/scaling.md` takes a few minutes; nothing leaves this machine.
"""

import argparse
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import dask
import psutil
import zarr

from benchmarks import pages
from benchmarks.cases import FULL, KMEANS, Case
from benchmarks.constants import (
    OfCluster,
    PerChunk,
    Used,
    busy,
    costs,
    decoding,
    iterating,
    merging,
    no_op_job,
    no_op_passes,
    of_cluster,
    per_chunk,
    processes,
    rows_of,
    store_of,
)
from benchmarks.costs import Costs, Job, Split, pass_seconds
from benchmarks.nothing import Nothing, few_rows
from benchmarks.report import progress
from benchmarks.settings import Settings
from daskmix.engines.dask import OnDask
from daskmix.engines.keep import Keep
from daskmix.rows import Rows, bundle_bytes

FEW = 256  # rows, of which an iteration costs what the driver does


@dataclass(frozen=True)
class Question:
    """A model that is fitted: what an answer weighs, and what an iteration takes."""

    name: str
    d: int
    k: int
    compute: float  # s per byte of float32 rows
    solve: float  # s

    @property
    def answer(self) -> float:
        """Bytes of the sums of one task, and nearly those of the model."""
        return 8 * self.k * (1 + self.d + (self.d**2 if self.name == str(FULL) else 0))

    def of(self, nbytes: float, chunk: float, bundle: float | None = None) -> Job:
        """This question to so many bytes of rows."""
        bundle = bundle_bytes(int(nbytes)) if bundle is None else bundle
        return Job(nbytes, chunk, bundle, self.compute, self.answer, self.answer, self.solve)

    def __str__(self) -> str:
        return f"{self.name}, d={self.d}, k={self.k}"


@dataclass(frozen=True)
class ManyChunks:
    """A store of very many small chunks."""

    chunks: int
    bundles: int
    tasks: int
    rows_seconds: float
    bundles_seconds: float
    graph_seconds: float
    read: float  # s per chunk, in a pass that reads each
    grown: float  # bytes, over three passes after the first two
    call: float  # s per chunk, each read with a call to Zarr of its own
    kept: float  # s per chunk, in a pass over as many that are kept, each by itself


@dataclass(frozen=True)
class Checked:
    """A pass with nothing to do, predicted and measured."""

    workers: int
    predicted: Split
    processor: float  # s of all processes together, predicted
    first: Used
    later: Used


@dataclass(frozen=True)
class Measured:
    """Everything that the page is made of."""

    costs: Costs
    questions: tuple[Question, ...]
    chunk: PerChunk
    cluster: OfCluster
    many: ManyChunks
    bundles: int  # of the passes with nothing to do
    checked: tuple[Checked, ...]
    cores: int


def question(method: Any, rows: int, d: int, k: int) -> Question:
    """One model, timed."""
    case = Case(method, rows, d, k, "float32")
    solve = iterating(replace(case, rows=max(FEW, 4 * k)))
    return Question(str(method), d, k, max(iterating(case) - solve, 0.0) / case.nbytes, solve)


def many_chunks(chunks: int) -> ManyChunks:
    """Rows, bundles, graph and passes of such a store."""
    with store_of(chunks, rows=10) as path, dask.config.set(scheduler="threads"):
        rows, rows_seconds = timed(partial(rows_of, path))
        bundles, bundles_seconds = timed(lambda: rows.bundles)
        engine = OnDask()
        held = engine.shelves.of(rows)
        (tasks, _), graph_seconds = timed(lambda: engine._graph(Nothing(8), rows, held))
        progress(f"rows of {chunks:,} chunks made in {rows_seconds:.2f} s; reading them")
        read = min(pass_of(engine, rows) for _ in range(2)) / chunks
        before = psutil.Process().memory_info().rss
        for _ in range(3):
            pass_of(engine, rows)
        grown = psutil.Process().memory_info().rss - before
        call = one_by_one(path, min(chunks, 5000))
    return ManyChunks(
        chunks, len(bundles), len(tasks), rows_seconds, bundles_seconds, graph_seconds, read, grown, call, kept(chunks)
    )


def pass_of(engine: OnDask, rows: Rows) -> float:
    """Processor seconds of a pass with nothing to do."""
    return busy(lambda: engine.run(Nothing(8), rows))


def one_by_one(path: str, chunks: int) -> float:
    """Processor seconds per chunk of reading each with a call to Zarr of its own."""
    store = zarr.open_array(path, mode="r")
    step = store.chunks[0]
    return busy(lambda: [store[i * step : (i + 1) * step] for i in range(chunks)]) / chunks


def kept(chunks: int) -> float:
    """Processor seconds per chunk of a pass over chunks that are kept."""
    rows, engine = few_rows(chunks), OnDask(scheduler="threads", keep=Keep(memory=True, fit="simulated"))
    pass_of(engine, rows)
    again = min(pass_of(engine, rows) for _ in range(3))
    engine.close()
    return again / chunks


def timed(work: Any) -> tuple[Any, float]:
    """What it gives, and processor seconds."""
    began = time.process_time()
    found = work()
    return found, time.process_time() - began


def check(workers: int, bundles: int, known: Costs, idle: float, cores: int) -> Checked:
    """A cluster of so many processes on the cores that there are."""
    progress(f"{workers} processes with nothing to do")
    with processes(workers) as cluster:
        first, later = no_op_passes(cluster, bundles)
    # What idle workers take for themselves, others cannot have.
    left = max(cores - idle * workers, 0.5)
    job = no_op_job(bundles)
    alone = replace(known, decode=0.0, chunk=0.0)
    split = pass_seconds(alone, job, workers, left)
    spent = job.tasks * (known.task + known.schedule)
    return Checked(workers, split, spent + idle * workers * later.wall, first, later)


def measure(settings: Settings) -> Measured:
    """All constants, then all checks."""
    progress("decoding and computing")
    decode = decoding(Case(KMEANS, settings.rows(1 << 20), 32, 16, "float32"), 16)
    questions = (
        question(KMEANS, settings.rows(1 << 20), 32, 16),
        question(FULL, settings.rows(1 << 18), 16, 16),
        question(FULL, settings.rows(1 << 14), 128, 64),
    )
    many = many_chunks(settings.rows(100_000))
    bundles = settings.rows(800)
    progress("2 processes with nothing to do")
    cluster = of_cluster(bundles)
    known = costs(decode, many.call, merging(), cluster)
    cores = len(os.sched_getaffinity(0))
    sizes = (2, 8, 16) if settings.shrink == 1 else (2,)
    checked = tuple(check(n, bundles, known, cluster.idle, cores) for n in sizes)
    return Measured(known, questions, per_chunk(settings.rows(10_000)), cluster, many, bundles, checked, cores)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write everything to this Markdown page, too")
    parser.add_argument("--quick", action="store_true", help="little of everything: to see that it runs")
    given = parser.parse_args()
    page = pages.scaling(measure(Settings(1, 1, 100 if given.quick else 1)))
    print(page)
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(f"{page}\n")


if __name__ == "__main__":
    main()
