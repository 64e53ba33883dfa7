"""The constants of `benchmarks.costs`, measured in processor seconds: other loads on the machine hardly move those."""

import pickle
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import zarr
from distributed import Client, LocalCluster

from benchmarks.cases import Case
from benchmarks.contenders import own
from benchmarks.costs import Costs, Job
from benchmarks.nothing import Nothing, empty_rows
from benchmarks.peers import tasks_on
from benchmarks.storage import stored
from benchmarks.timing import fit_seconds
from daskmix.block import Missing
from daskmix.engines.dask import OnDask
from daskmix.engines.keep import Held
from daskmix.rows import Rows
from daskmix.sources.zarr import RUN, open_path, rows_from_stored_array

ANSWER = 4096  # bytes of an answer to nothing
TRAVELS = 32 << 20  # bytes of what is sent to see how fast
LINKS = 40  # of a chain of tasks
LONG, LEAST = 2.0, 3  # processor seconds that iterations are timed for, and at least so many


def busy(work: Callable[[], Any]) -> float:
    """Processor seconds of this process, all threads of it."""
    began = time.process_time()
    work()
    return time.process_time() - began


def decoding(case: Case, chunks: int) -> float:
    """Seconds per byte of a zstd store."""
    with stored(case, chunks) as rows:
        store = zarr.open_array(rows.zstd, mode="r")

        def read() -> None:
            for a in range(0, case.rows, rows.chunk_rows):
                store[a : a + rows.chunk_rows]

        read()
        return busy(read) / case.nbytes


def iterating(case: Case) -> float:
    """Seconds of an iteration over rows in memory, on one thread."""
    x = case.data()
    lazy, start = case.lazy(x, 1), case.start(x)

    def fit(iterations: int) -> float:
        return busy(lambda: fit_seconds(lambda: own(case, start, iterations).fit(lazy)))

    with tasks_on(1):
        fit(1)
        # The shorter of two: one that was disturbed would make the long one too short, and its share of it large.
        short = min(fit(1), fit(1))
        more = max(LEAST, int(LONG / short))
        return max(0.0, min(fit(1 + more), fit(1 + more)) - short) / more


def merging(nbytes: int = 8 << 20) -> float:
    """Seconds per byte of an answer that is added to another."""
    a, b = np.zeros((2, nbytes // 8))
    a + b
    return busy(lambda: [a + b for _ in range(20)]) / 20 / nbytes


@contextmanager
def store_of(chunks: int, rows: int) -> Iterator[str]:
    """A store of so many chunks of so many rows; none was written, so that all read as the fill value."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "rows.zarr")
        zarr.create_array(path, shape=(chunks * rows, 4), chunks=(rows, 4), dtype="f4", compressors=None)
        yield path


def rows_of(path: str) -> Rows:
    """The rows of a store."""
    return rows_from_stored_array(open_path(path, accept=True), None, Missing.refuse)


@dataclass(frozen=True)
class PerChunk:
    """What the program that fits spends on a chunk that it never sees, and that is not read with others."""

    memory: float  # bytes
    pickled: float  # bytes, in the bundle that holds it
    alone: float  # bytes, of a bundle that holds no other


def per_chunk(chunks: int = 10_000) -> PerChunk:
    """Memory of parts, and what of it is sent."""
    with store_of(chunks, rows=RUN // 16) as path:
        tracemalloc.start()
        rows = rows_of(path)
        memory = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        one, many = (len(pickle.dumps(Held(rows.parts[:n]))) for n in (1, 1001))
    return PerChunk(memory / chunks, (many - one) / 1000, one)


@dataclass(frozen=True)
class Used:
    """What a pass took: seconds, and processor seconds of client and scheduler (one process) and of all workers."""

    wall: float
    schedule: float
    workers: float


class Processes:
    """A cluster on this machine: each worker a process with one thread, the scheduler in this one."""

    def __init__(self, client: Client, workers: int) -> None:
        self.client, self.workers = client, workers
        nannies = psutil.Process().children()
        self._them = [child for nanny in nannies for child in (nanny, *nanny.children(recursive=True))]

    def used(self, work: Callable[[], Any]) -> Used:
        """What this takes."""
        began, theirs, ours = time.perf_counter(), self._seconds(), time.process_time()
        work()
        return Used(time.perf_counter() - began, time.process_time() - ours, self._seconds() - theirs)

    def idle(self, seconds: float) -> float:
        """The share of a core that one worker takes for itself."""
        return self.used(lambda: time.sleep(seconds)).workers / seconds / self.workers

    def _seconds(self) -> float:
        return sum(sum(p.cpu_times()[:2]) for p in self._them)


@contextmanager
def processes(workers: int) -> Iterator[Processes]:
    """So many, for a while; Dask computes on them."""
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as local,
        Client(local) as client,
    ):
        client.wait_for_workers(workers)
        yield Processes(client, workers)


def no_op_passes(cluster: Processes, bundles: int, answer: int = ANSWER) -> tuple[Used, Used]:
    """The first pass, which sends the bundles, and a later one."""
    engine, rows = OnDask(), empty_rows(bundles)
    warm = OnDask()
    warm.run(Nothing(answer), empty_rows(2 * cluster.workers))
    warm.close()
    first, _, later = (cluster.used(lambda: engine.run(Nothing(answer), rows)) for _ in range(3))
    engine.close()
    return first, later


def no_op_job(bundles: int, answer: int = ANSWER) -> Job:
    """The same, for the model."""
    return Job(bundles, 1, 1, 0.0, answer, 0.0, 0.0)


def _after(previous: Any, *_: Any) -> Any:
    return previous


def stepping(cluster: Processes) -> float:
    """Seconds from a task to the next one on another worker."""
    client, (a, b, *_) = cluster.client, list(cluster.client.scheduler_info()["workers"])

    def chain() -> None:
        link = client.submit(_after, 0, workers=[a], pure=False)
        for i in range(LINKS):
            link = client.submit(_after, link, workers=[(b, a)[i % 2]], pure=False)
        link.result()

    chain()
    return cluster.used(chain).wall / LINKS


def travelling(cluster: Processes, step: float) -> float:
    """Seconds per byte from one worker to another, by loopback."""
    client, (a, b, *_) = cluster.client, list(cluster.client.scheduler_info()["workers"])
    seconds = []
    for _ in range(4):
        there = client.submit(np.ones, TRAVELS // 8, workers=[a], pure=False)
        client.submit(len, there, workers=[a], pure=False).result()
        seconds.append(cluster.used(client.submit(len, there, workers=[b], pure=False).result).wall)
    return max(0.0, min(seconds) - step) / TRAVELS


def memory_per_task(bundles: int) -> float:
    """Bytes of client and scheduler at the height of a first pass, for each task more."""
    few = 1 + bundles // 4
    return (_peak(bundles) - _peak(few)) / (no_op_job(bundles).tasks - no_op_job(few).tasks)


def _peak(bundles: int) -> float:
    engine, rows = OnDask(), empty_rows(bundles)
    tracemalloc.start()
    engine.run(Nothing(ANSWER), rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    engine.close()
    return peak


@dataclass(frozen=True)
class OfCluster:
    """What a cluster of two workers showed."""

    schedule: float  # s per task
    task: float  # s per task
    first: float  # times that the first pass costs more
    idle: float  # share of a core
    step: float  # s
    travel: float  # s per byte
    memory: float  # bytes per task


def of_cluster(bundles: int) -> OfCluster:
    """Two workers, which do nothing."""
    with processes(2) as cluster:
        first, later = no_op_passes(cluster, bundles)
        idle = cluster.idle(2.0)
        tasks, step = no_op_job(bundles).tasks, stepping(cluster)
        working = max(later.workers - idle * 2 * later.wall, 0.1 * later.workers)
        return OfCluster(
            later.schedule / tasks,
            working / tasks,
            (first.schedule + first.workers) / (later.schedule + later.workers),
            idle,
            step,
            travelling(cluster, step),
            memory_per_task(bundles // 2),
        )


def costs(decode: float, chunk: float, merge: float, cluster: OfCluster) -> Costs:
    """The constants of the model."""
    return Costs(decode, chunk, cluster.task, cluster.schedule, merge, cluster.travel, cluster.step)
