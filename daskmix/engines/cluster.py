"""What can be lost on a Dask cluster, what is seen of a pass that stands still there, and how to go on after it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from daskmix.again import transient
from daskmix.engines.patience import NAMED, OFTEN, Patience, Watch, chunks_of, within
from daskmix.errors import ClusterLostError, DaskmixError, SourceUnavailableError, WorkersLostError
from daskmix.passes import Going, Onlooker
from daskmix.rows import Part, Rows

ANSWER = 30.0  # seconds in which a scheduler or worker says what is asked, or counts as silent
SOON = 0.1  # seconds between two tries to reach a scheduler again
GIB = 1 << 30

READ, BUNDLE = "daskmix-read", "daskmix-bundle"  # names of tasks that concern one bundle, before their tokens


# --- what went wrong --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """Why a pass has no answer, where the rows and the code are not to blame."""

    why: str
    again: type[DaskmixError] = WorkersLostError  # what to raise once it happened too often
    advice: str = "give workers more memory or see their logs, raise Run(retries=...), or run it again"


def loss(error: Exception, waiting: OnCluster) -> Loss | None:
    """What was lost; None for an error of the rows or of the code, which would only come again."""
    from distributed import KilledWorker
    from distributed.client import ClosedClientError
    from distributed.scheduler import NoValidWorkerError, NoWorkerError

    client, rows, answer = waiting.client, waiting.rows, waiting.answer
    if isinstance(error, DaskmixError):
        return None
    if isinstance(error, KilledWorker):
        deaths, what = error.allowed_failures + 1, named(waiting.deadliest() or error.task, rows)
        return Loss(f"{deaths} workers died one after the other that had {what} to do")
    if isinstance(error, NoWorkerError | NoValidWorkerError):
        return Loss(f"there were no workers for {error.timeout:.3g} s", advice="start some, and run it again")
    if isinstance(error, CancelledError | ClosedClientError):
        return Loss(f"the connection to the scheduler was lost ({_in_short(error)})")
    if answer is not None and answer.status == "error":
        # An error of a task: of those that X is made of, where it is not one of ours.
        if not (rows.graph and transient(error)):
            return None
        why = f"a task that X is made of failed: {_in_short(error)}"
        return Loss(why, SourceUnavailableError, "see whether its source can be reached, and run it again")
    if isinstance(error, OSError) or client.status != "running":
        return Loss(f"the connection to the cluster failed ({_in_short(error)})")
    return None


def _in_short(error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:200]}"


def named(key: Any, rows: Rows) -> str:
    """What a task of a pass does, as messages name it."""
    parts = _bundle(key, rows)
    if parts is not None:
        return chunks_of(parts)
    return "answers to merge" if isinstance(key, tuple) and str(key[0]).startswith("daskmix-merge") else f"task {key!r}"


def _bundle(key: Any, rows: Rows) -> tuple[Part, ...] | None:
    """The parts that this task reads."""
    if isinstance(key, tuple) and str(key[0]).startswith((READ, BUNDLE)):
        return rows.bundles[int(key[1])]
    return None


class Repeats:
    """How often one pass was submitted again, and why."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.done = 0

    def spend(self, lost: Loss, error: Exception) -> str:
        """One more time: what to say about it.

        Raises
        ------
        WorkersLostError, SourceUnavailableError
            It was repeated as often as it may.
        """
        if self.done >= self.patience.retries:
            raise lost.again(f"{lost.why}, and the pass was submitted {self.done + 1} times; {lost.advice}") from error
        self.done += 1
        return f"{lost.why}; the pass is submitted again ({self.done} of {self.patience.retries} times)"


# --- the connection ---------------------------------------------------------------------------------------------------


def connected_again(client: Any, watch: Watch) -> None:
    """Wait until the client, which connects by itself, knows a scheduler that answers.

    Raises
    ------
    ClusterLostError
        It was closed, or has given up.
    StalledError
    """
    address = client.scheduler.address if client.scheduler is not None else "its address"
    while not _answers(client):
        if client.status in ("closing", "closed"):
            raise ClusterLostError(
                f"no Dask scheduler answered at {address} for as long as the client waits, and it is closed now; "
                "connect again, with Client(address, timeout=...) to wait longer, and run it again"
            )
        watch.look(None, lambda: f"the scheduler at {address} does not answer")
        time.sleep(SOON)


def _answers(client: Any) -> bool:
    if client.status != "running":
        return False
    try:
        within(ANSWER, client.scheduler_info)
    except Exception:  # whatever it is, there is no answer
        return False
    return True


def check_persisted(rows: Rows) -> None:
    """Whether what X is persisted as is still there.

    Raises
    ------
    ClusterLostError
        It was lost with the scheduler.
    """
    for node in rows.graph.values():
        value = getattr(node, "value", node)
        if hasattr(value, "cancelled") and hasattr(value, "client") and value.cancelled():
            raise ClusterLostError("X was persisted on the cluster, which lost it; persist it again, and run it again")


# --- a pass that stands still -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OfWorker:
    """What the scheduler knows of a worker."""

    address: str
    paused: bool
    memory: int  # bytes that its process takes
    spilled: int  # bytes that Dask moved to its disk
    limit: int  # of its memory, 0 for none
    silent: float  # seconds since it was last heard of
    others: int  # tasks of others that it has to do


@dataclass(frozen=True)
class Sight:
    """What the scheduler knows of a pass that stands still."""

    workers: tuple[OfWorker, ...]
    busy: tuple[tuple[Any, str, float], ...]  # tasks of the pass at workers: key, worker, seconds; the longest first
    deadly: tuple[tuple[Any, int], ...]  # tasks whose workers died: key, how many; the most first


def progress_of(groups: Sequence[str], dask_scheduler: Any = None) -> tuple[tuple[float, ...], int, frozenset[str]]:
    """What the scheduler knows of groups of tasks, where it runs.

    Seconds of work that each has finished; how many tasks that each read a bundle are done; and the workers.
    """
    known = [dask_scheduler.task_groups.get(name) for name in groups]
    seconds = (0.0 if group is None else group.all_durations.get("compute", 0.0) for group in known)
    reads = (group for name, group in zip(groups, known, strict=True) if group is not None and name.startswith(READ))
    # One whose answer was merged already is let go of.
    done = sum(group.states[state] for group in reads for state in ("memory", "released", "forgotten"))
    return tuple(seconds), done, frozenset(dask_scheduler.workers)


class Seen:
    """How far the passes on a cluster are, through all that is lost there, and who is told."""

    def __init__(self, onlooker: Onlooker) -> None:
        self.onlooker = onlooker
        self.now = Going(0, 0)
        self._workers: frozenset[str] = frozenset()

    def begin(self, total: int, workers: frozenset[str]) -> None:
        """A pass over so many parts is submitted."""
        self.now = replace(self.now, done=0, total=total)
        self.look(0, workers)

    def again(self) -> None:
        """It will be submitted again."""
        self.now = replace(self.now, repeats=self.now.repeats + 1)

    def look(self, done: int, workers: frozenset[str]) -> None:
        """So many parts are done, and these workers there."""
        lost = self.now.lost + len(self._workers - workers)
        self._workers = workers
        # The scheduler forgets what is done when the last merge is.
        done = min(max(done, self.now.done), self.now.total)
        self.now = replace(self.now, done=done, workers=len(workers), lost=lost)
        self.onlooker(self.now)

    def end(self) -> None:
        """The answer is there."""
        self.now = replace(self.now, done=self.now.total)
        self.onlooker(self.now)


def sight_of(groups: Sequence[str], bundles: Sequence[Any], dask_scheduler: Any = None) -> Sight:
    """What stands still; `bundles` are the keys of tasks that each read one. Runs on the scheduler."""
    now, ours, found = time.time(), set(groups), dask_scheduler.workers.values()
    workers = tuple(
        OfWorker(
            ws.address,
            ws.status.name == "paused",
            ws.memory.process,
            ws.memory.spilled,
            ws.memory_limit or 0,
            now - ws.last_seen,
            sum(ts.group.name not in ours for ts in ws.processing),
        )
        for ws in found
    )
    # What a worker is at, it says now and then.
    busy = [
        (ts.key, ws.address, ws.executing.get(ts, 0.0))
        for ws in found
        for ts in sorted(ws.processing, key=lambda ts: ts.priority)
        if ts.group.name in ours
    ]
    tasks = [ts for key in bundles if (ts := dask_scheduler.tasks.get(key)) is not None]
    # A worker that dies casts suspicion on all it had to do. It was at the first of them, those before were done.
    deadly = sorted((ts for ts in tasks if ts.suspicious), key=lambda ts: (-ts.suspicious, ts.priority))
    return Sight(
        workers,
        tuple(sorted(busy, key=lambda task: -task[2])[:NAMED]),
        tuple((ts.key, ts.suspicious) for ts in deadly[:NAMED]),
    )


def free_disk(dask_worker: Any = None) -> int:
    """Bytes that are free where a worker spills to; runs on it."""
    return shutil.disk_usage(dask_worker.local_directory).free


class OnCluster:
    """A pass on a cluster that is waited for."""

    def __init__(self, client: Any, rows: Rows, watch: Watch, seen: Seen) -> None:
        self.client, self.rows, self.watch, self.seen = client, rows, watch, seen
        self.answer: Any = None  # a future, once the pass was submitted
        self._tasks: Mapping[Any, Any] = {}
        self._workerless: float | None = None  # since when there was no worker

    def result(self, answer: Any, tasks: Mapping[Any, Any]) -> Any:
        """The answer of these tasks, as soon as it is there.

        Raises
        ------
        StalledError
        """
        self.answer, self._tasks = answer, tasks
        # Where nobody minds that it stands still, somebody may like to see it move.
        interval = self.watch.patience.interval or OFTEN
        while True:
            try:
                answer.exception(timeout=interval)  # waits for it, and fetches nothing
                return answer.result(timeout=self.watch.patience.stall)
            except TimeoutError:
                if answer.status == "error":  # it was the task's
                    raise
            self._look()

    @cached_property
    def _groups(self) -> list[str]:
        """What the scheduler calls the tasks of this pass."""
        from distributed.utils import key_split_group

        return sorted({key_split_group(key) for key in self._tasks})

    def _look(self) -> None:
        try:
            seconds, done, workers = within(ANSWER, lambda: self.client.run_on_scheduler(progress_of, self._groups))
        except Exception as error:  # silent or gone: the future says so as soon as Dask knows
            silent = _in_short(error)
            self.watch.look(None, lambda: f"the scheduler does not answer ({silent})")
            return
        if workers:
            self._workerless = None
        elif self._workerless is None:
            self._workerless = time.monotonic()
        self.seen.look(done, workers)
        self.watch.look((seconds, len(workers)), self._said)

    def _said(self) -> str:
        """What stands still, in a sentence."""
        try:
            sight = self._sight()
        except Exception as error:
            return f"the scheduler does not answer ({_in_short(error)})"
        paused = [worker for worker in sight.workers if worker.paused]
        silent = [worker for worker in sight.workers if worker.silent > ANSWER]
        seen = [
            *self._without_workers(sight),
            *(f"{n} workers died that had {named(k, self.rows)} to do" for k, n in sight.deadly if n > 1),
            *(self._of_paused(paused) if paused else ()),
            *(f"worker {w.address} was not heard of for {w.silent:.3g} s" for w in silent[:NAMED]),
            *(self._of_task(*task) for task in sight.busy if task[2] or not sight.busy[0][2]),
        ]
        others = sum(worker.others for worker in sight.workers)
        if not seen and others:
            seen = [f"workers have {others} tasks of others to do"]
        return "; ".join(seen) or "workers are idle, and no task of the pass is at work"

    def _sight(self) -> Sight:
        bundles = [key for key in self._tasks if _bundle(key, self.rows) is not None]
        found: Sight = within(ANSWER, lambda: self.client.run_on_scheduler(sight_of, self._groups, bundles))
        return found

    def deadliest(self) -> Any:
        """The task that most workers died at; None where nobody knows."""
        try:
            deadly = self._sight().deadly
        except Exception:  # the error is told anyway
            return None
        return deadly[0][0] if deadly else None

    def _of_task(self, key: Any, worker: str, seconds: float) -> str:
        what = named(key, self.rows)
        return f"{worker} has been at {what} for {seconds:.3g} s" if seconds else f"{worker} has {what} to do"

    def _without_workers(self, sight: Sight) -> list[str]:
        if sight.workers:
            return []
        since = "" if self._workerless is None else f" for {time.monotonic() - self._workerless:.3g} s"
        return [f"the cluster has had no workers{since}, start some"]

    def _of_paused(self, paused: Sequence[OfWorker]) -> list[str]:
        """Workers that take no tasks, as their memory is full."""
        addresses = [worker.address for worker in paused[:NAMED]]
        try:
            run: Callable[..., Mapping[str, int]] = self.client.run
            free = within(ANSWER, lambda: run(free_disk, workers=addresses, on_error="ignore"))
        except Exception:  # one that does not answer has told the scheduler enough
            free = {}
        return [_of_paused(worker, free.get(worker.address)) for worker in paused[:NAMED]]


def _of_paused(worker: OfWorker, free: int | None) -> str:
    limit = f" of {worker.limit / GIB:.3g}" if worker.limit else ""
    disk = "" if free is None else f", with {free / GIB:.3g} GiB free"
    return (
        f"worker {worker.address} is paused: its process takes {worker.memory / GIB:.3g}{limit} GiB of memory, "
        f"and {worker.spilled / GIB:.3g} GiB are spilled to its disk{disk}"
    )


def as_daskmix_error(error: Exception) -> DaskmixError | None:
    """A bare error of a cluster, such as comes out of a Dask collection, as one of ours; None for any other."""
    from distributed import KilledWorker
    from distributed.client import ClosedClientError
    from distributed.comm import CommClosedError
    from distributed.scheduler import NoValidWorkerError, NoWorkerError

    if isinstance(error, KilledWorker | NoWorkerError | NoValidWorkerError):
        return WorkersLostError(f"workers were lost too often ({_in_short(error)}); see their logs, and run it again")
    if isinstance(error, CancelledError | ClosedClientError | CommClosedError):
        return ClusterLostError(f"the connection to the Dask cluster was lost ({_in_short(error)}); run it again")
    return None
