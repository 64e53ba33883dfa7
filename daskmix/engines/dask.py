"""A flat graph per pass on any Dask scheduler: one task per bundle, then a tree of merges."""

from __future__ import annotations

import os
import platform
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, TypeVar
from uuid import uuid4

import dask
import dask.threaded
from dask.base import get_scheduler
from dask.callbacks import Callback
from dask.local import get_async
from dask.system import CPU_COUNT

from daskmix.again import transient
from daskmix.block import Missing
from daskmix.credentials import secrets_in
from daskmix.engines.cluster import (
    ANSWER,
    BUNDLE,
    READ,
    OnCluster,
    Repeats,
    Seen,
    check_persisted,
    connected_again,
    loss,
)
from daskmix.engines.keep import NOTHING, Held, Keep, this_worker
from daskmix.engines.local import Local, Shelves, answer_bundle, merge_answers, one_blas_thread
from daskmix.engines.patience import NAMED, USUAL, Patience, Watch, chunks_of, within
from daskmix.errors import (
    AsynchronousClientError,
    BadChunkError,
    DaskmixError,
    MixedWorkersWarning,
    PassRepeatedWarning,
    SecretsInGraphWarning,
    SourceUnavailableError,
    VersionMismatchError,
)
from daskmix.kernels import Kernels, compiled
from daskmix.passes import Engine, Going, Onlooker, Tally, nobody
from daskmix.reduction import Reduction, merge_branches, merge_tree
from daskmix.rows import Part, Rows

A = TypeVar("A")

IN_FLIGHT = 2  # tasks for each thread: the one that it is at, and the next
MUST_AGREE = ("daskmix", "numpy", "numba", "scipy", "zarr", "xarray")


def engine_for(rows: Rows, keep: Keep = NOTHING, patience: Patience = USUAL, onlooker: Onlooker = nobody) -> Engine:
    """The engine that suits where the rows are and where this code runs.

    Inside a task of a Dask cluster everything is done in that task: waiting for other tasks could wait for ever. Rows
    in memory are computed on by the threads of this process. Anything else goes to the scheduler that Dask would use.
    """
    if this_worker() is not None:
        return Local(keep=keep, onlooker=onlooker)
    if rows.in_memory and len(rows.bundles) <= 1:
        return Local(keep=keep, onlooker=onlooker)
    if rows.in_memory:
        return OnDask(scheduler="threads", keep=keep, onlooker=onlooker)
    return OnDask(keep=keep, patience=patience, onlooker=onlooker)


def _schedule(name: str | None) -> Callable[..., Any]:
    """What Dask would compute with: get(graph, keys)."""
    try:
        found = get_scheduler(scheduler=name) or dask.threaded.get
    except RuntimeError as error:
        raise AsynchronousClientError(
            "the active Dask client is asynchronous, but a fit waits for its answers; use Client(address) without "
            "asynchronous=True, or run the fit in a thread"
        ) from error
    return _by_threads if found is dask.threaded.get else found


@cache
def _pool(threads: int) -> Executor:
    """Threads of this process, for all fits."""
    return ThreadPoolExecutor(threads, thread_name_prefix="daskmix")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not come along


def _by_threads(tasks: Mapping[Any, Any], keys: Sequence[Any], desk: Desk | None = None) -> Any:
    """As Dask's threads do it, but with a task in wait for each of them; over a desk, where one is watched.

    A thread that has to wait for the one that hands out tasks loses milliseconds where all processors are busy.
    """
    threads = dask.config.get("num_workers", None) or CPU_COUNT
    pool = dask.config.get("pool", None) or _pool(threads)
    if not isinstance(pool, Executor):
        return dask.threaded.get(tasks, keys)
    submit = pool.submit if desk is None else partial(desk.submit, pool)
    return get_async(submit, IN_FLIGHT * threads, tasks, keys)


@dataclass(frozen=True)
class Desk:
    """Where tasks of this process go to and come back from, so that whoever waits for them need not wait for ever."""

    at_work: dict[int, tuple[tuple[Part, ...], float]] = field(default_factory=dict)  # bundles, and since when
    waiting: set[Future[Any]] = field(default_factory=set)
    done: list[None] = field(default_factory=list)

    def submit(self, pool: Executor, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """As an executor does it, but an answer may come before the function's own."""
        answer: Future[Any] = Future()
        self.waiting.add(answer)
        pool.submit(function, *arguments).add_done_callback(partial(self._pass_on, answer))
        return answer

    def _pass_on(self, answer: Future[Any], own: Future[Any]) -> None:
        self.done.append(None)
        self.waiting.discard(answer)
        with suppress(InvalidStateError):  # nobody waits for it any more
            error = own.exception()
            answer.set_result(own.result()) if error is None else answer.set_exception(error)

    def noted(self, function: Callable[..., A], question: Any, held: Held, *given: Any) -> A:
        """A task, of which it is known meanwhile that it is at work."""
        self.at_work[id(held)] = held.bundle, time.monotonic()
        try:
            return function(question, held, *given)
        finally:
            del self.at_work[id(held)]

    @contextmanager
    def watched(self, watch: Watch) -> Iterator[None]:
        """A thread looks meanwhile whether anything is done, and ends the waiting if so asked."""
        interval, ended = watch.patience.interval, threading.Event()
        if interval is None:
            yield
            return

        def look() -> None:
            while not ended.wait(interval):
                try:
                    watch.look(len(self.done), self._said, hanging=True)
                except Exception as error:  # as it is asked for, or as filters of warnings make it
                    for answer in list(self.waiting):
                        with suppress(InvalidStateError):
                            answer.set_exception(error)
                    return

        threading.Thread(target=look, name="daskmix-watch", daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def _said(self) -> str:
        now, longest = time.monotonic(), sorted(self.at_work.values(), key=lambda task: task[1])[:NAMED]
        busy = (f"this process has been at {chunks_of(parts)} for {now - since:.3g} s" for parts, since in longest)
        return "; ".join(busy) or "no task of the pass is at work, as others keep the threads busy"


@contextmanager
def counted(tasks: Mapping[Any, Any], total: int, onlooker: Onlooker) -> Iterator[None]:
    """Whoever looks on is told of each bundle of these tasks that is done here, by the thread that waits for them."""
    done: list[Any] = []

    def count(key: Any, *others: Any) -> None:
        # Dask tells of the tasks of all threads that compute something meanwhile.
        if isinstance(key, tuple) and str(key[0]).startswith(READ) and key in tasks:
            done.append(key)
            onlooker(Going(len(done), total))

    onlooker(Going(0, total))
    with nullcontext() if onlooker is nobody else Callback(posttask=count):
        yield
    onlooker(Going(total, total))


def _itself(value: A) -> A:
    return value


def _merge(reduction: Reduction[A], *answers: tuple[A, Tally]) -> tuple[A, Tally]:
    return merge_answers(reduction, answers)


def _kernels(name: str) -> Kernels:
    # Modules do not travel; their names do.
    from daskmix.kernels import reference

    return {"compiled": compiled, "reference": reference}[name]


def _answer(missing: Missing, ops: str, reduction: Reduction[A], held: Held, *given: Any) -> tuple[A, Tally]:
    return answer_bundle(reduction, held, missing, _kernels(ops), given)


def _filled(held: Held, missing: Missing) -> Held:
    """The bundle with what memory has room for, read before Dask asks for its size."""
    # Another one: workers remember the tasks that they were sent, and would keep what is in them.
    filled = Held(held.bundle, held.keep, held.ahead, held.memory)
    filled.fill(missing)
    return filled


class OnDask:
    """Dask's own scheduling: threads by default, the active distributed client when there is one."""

    def __init__(
        self,
        scheduler: str | None = None,
        ops: str = "compiled",
        keep: Keep = NOTHING,
        patience: Patience = USUAL,
        onlooker: Onlooker = nobody,
    ) -> None:
        self.scheduler = scheduler
        self.ops = ops
        self.patience = patience
        self.shelves = Shelves(keep)
        self.onlooker, self.seen = onlooker, Seen(onlooker)
        self.checked: frozenset[str] = frozenset()
        self._pinned: dict[int, list[Any]] = {}  # futures of bundles, by which ones they are

    def run(self, reduction: Reduction[A], rows: Rows) -> tuple[A, Tally]:
        bundles = self.shelves.of(rows)
        if not bundles:
            return reduction.zero(), Tally(0, 0, 0)
        schedule = _schedule(self.scheduler)
        client = getattr(schedule, "__self__", None)  # a cluster's scheduler is a method of its client
        try:
            return self._on_cluster(client, reduction, rows) if client else self._here(schedule, reduction, rows)
        except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
            if isinstance(error, DaskmixError) or not rows.graph:
                raise
            # The rows' own tasks are Dask's here, and so are their errors.
            kind = SourceUnavailableError if transient(error) else BadChunkError
            raise kind(
                f"a task that X is made of failed: {type(error).__name__}: {error}; compute X alone to see which"
            ) from error

    def close(self) -> None:
        self.shelves.clear()
        self._unpin()

    def _unpin(self) -> None:
        for futures in self._pinned.values():
            for future in futures:
                future.release()
        self._pinned = {}

    def _here(self, schedule: Any, reduction: Reduction[A], rows: Rows) -> Any:
        """By the threads of this process, which holds the bundles itself."""
        self.shelves.keep.check_scratch()
        answer: Callable[..., Any] = partial(_answer, rows.missing, self.ops)
        watched: AbstractContextManager[None] = nullcontext()  # arrays in memory keep nobody waiting
        if schedule is _by_threads and not rows.in_memory:
            desk = Desk()
            schedule, answer = partial(_by_threads, desk=desk), partial(desk.noted, answer)
            watched = desk.watched(Watch(self.patience))
        tasks, branches = self._tasks(answer, reduction, rows, self.shelves.of(rows), merge_branches)
        with one_blas_thread(), watched, counted(tasks, len(rows.bundles), self.onlooker):
            return merge_answers(reduction, schedule(tasks, branches))

    def _on_cluster(self, client: Any, reduction: Reduction[A], rows: Rows) -> Any:
        """By the workers; again where the cluster lost what it was made of."""
        if not self.checked:
            warn_of_secrets(rows)
        repeats = Repeats(self.patience)
        while True:
            waiting = OnCluster(client, rows, Watch(self.patience), self.seen)
            try:
                workers = self._check_cluster(client)
                self.seen.begin(len(rows.bundles), workers)
                found = self._submitted(waiting, reduction)
            except Exception as error:
                lost = loss(error, waiting)
                if lost is None:
                    raise
                said = repeats.spend(lost, error)
                self.seen.again()
            else:
                self.seen.end()
                return found
            # Fresh keys for all: what is left of the old ones may be lost, or of a scheduler that is no more.
            self._unpin()
            warnings.warn(said, PassRepeatedWarning, stacklevel=2)
            connected_again(client, waiting.watch)
            check_persisted(rows)

    def _submitted(self, waiting: OnCluster, reduction: Reduction[A]) -> Any:
        """By the workers, which hold the bundles: values of Dask, so that their place and their loss are its affair."""
        client, rows = waiting.client, waiting.rows
        bundles = self.shelves.of(rows)
        pinned = self._pinned.get(id(bundles))
        if pinned:
            held = {future.key: future for future in pinned}
        else:
            name = f"{BUNDLE}-{uuid4().hex}"
            held = {(name, i): (partial(_filled, bundle, rows.missing),) for i, bundle in enumerate(bundles)}
        tasks, last = self._graph(reduction, rows, list(held))
        answer, *futures = client.get(tasks | held, [last] if pinned else [last, *held], sync=False)
        # Kept as futures from the first pass on; one whose worker was lost is made again by Dask.
        self._pinned.setdefault(id(bundles), futures)
        return waiting.result(answer, tasks | held)

    def _graph(self, reduction: Reduction[A], rows: Rows, bundles: Sequence[Any]) -> tuple[dict[Any, Any], Any]:
        """A task for the question, for each bundle and each merge; and the key of the last one."""
        # A task, not a value: it travels to each worker once, and is done again should that worker be lost.
        question = f"daskmix-question-{uuid4().hex}"
        answer = partial(_answer, rows.missing, self.ops)
        tasks, last = self._tasks(answer, question, rows, bundles, merge_tree)
        return tasks | {question: (partial(_itself, reduction),)}, last

    def _tasks(
        self, answer: Callable[..., Any], question: Any, rows: Rows, bundles: Sequence[Any], tree: Any
    ) -> tuple[dict[Any, Any], Any]:
        """A task for each bundle, then a tree of merges; and what the tree comes to, as keys.

        Question and bundles are values, or keys of tasks.
        """
        token = uuid4().hex
        tasks: dict[Any, Any] = dict(rows.graph)
        answers: list[Any] = []
        for i, (bundle, parts) in enumerate(zip(bundles, rows.bundles, strict=True)):
            key = (f"{READ}-{token}", i)
            tasks[key] = (answer, question, bundle, *(name for part in parts for name in part.needs))
            answers.append(key)

        def merge(keys: Sequence[Any]) -> Any:
            key = (f"daskmix-merge-{token}", len(tasks))
            tasks[key] = (_merge, question, *keys)
            return key

        return tasks, tree(merge, answers)

    def _check_cluster(self, client: Any) -> frozenset[str]:
        """The workers, whose versions are those of this process."""
        workers = frozenset(within(ANSWER, partial(client.scheduler_info, n_workers=-1))["workers"])
        if not self.checked or workers - self.checked:
            try:
                check_versions(client)
            except (OSError, CancelledError):  # workers come and go: the next pass asks again
                return workers
            self.checked = workers | {"scheduler"}
        return workers


def warn_of_secrets(rows: Rows) -> None:
    """Tell that credentials, which whoever made these rows put into them, go to scheduler and workers."""
    found = secrets_in(rows)
    if found:
        warnings.warn(
            f"what was passed as rows holds credentials ({', '.join(found)}), which travel in its tasks to the "
            "scheduler and all workers, and may be shown there; leave them out, and set them in the environment of the "
            "workers instead (AWS_ACCESS_KEY_ID and so on)",
            SecretsInGraphWarning,
            stacklevel=2,
        )


def check_versions(client: Any) -> None:
    """Compare the packages of client, scheduler and workers, and the workers' processors.

    Raises
    ------
    VersionMismatchError
        With the command that mends it.
    """
    versions = within(ANSWER, lambda: client.get_versions(packages=list(MUST_AGREE)))
    here = versions["client"]["packages"]
    for who, facts in {"the scheduler": versions["scheduler"], **versions["workers"]}.items():
        there = {} if facts is None else facts["packages"]
        differs = [name for name in MUST_AGREE if there.get(name) != here[name]]
        if differs:
            seen = ", ".join(f"{name} {there.get(name) or 'missing'} (client: {here[name]})" for name in differs)
            remedy = " ".join(f"{name}=={here[name]}" for name in differs)
            raise VersionMismatchError(f"{who} has {seen}; run there: pip install {remedy}")
    # A worker that is lost meanwhile has nothing to say; its tasks are made again elsewhere.
    processors = set(within(ANSWER, lambda: client.run(processor, on_error="ignore")).values())
    if len(processors) > 1:
        warnings.warn(
            f"workers have different processors ({', '.join(sorted(processors))}); results agree to rounding, "
            "not to the bit",
            MixedWorkersWarning,
            stacklevel=2,
        )


def processor() -> str:
    """The model of this machine's processor, as well as it can be told."""
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
