"""A flat graph per pass on any Dask scheduler: one task per bundle, then a tree of merges."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import dask
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from daskmix.block import Missing
from daskmix.engines.local import Local, answer_bundle, merge_answers
from daskmix.errors import (
    AsynchronousClientError,
    BadChunkError,
    DaskmixError,
    MixedWorkersWarning,
    VersionMismatchError,
)
from daskmix.kernels import Kernels, compiled
from daskmix.passes import Engine, Tally
from daskmix.reduction import Reduction, merge_tree
from daskmix.rows import Part, Rows

A = TypeVar("A")

MUST_AGREE = ("daskmix", "numpy", "numba", "scipy", "zarr", "xarray")


def engine_for(rows: Rows) -> Engine:
    """The engine that suits where the rows are and where this code runs.

    Inside a task of a Dask cluster everything is done in that task: waiting for other tasks could wait for ever. Rows
    in memory are computed on by the threads of this process. Anything else goes to the scheduler that Dask would use.
    """
    if _inside_a_task():
        return Local()
    if rows.in_memory:
        return Local() if len(rows.bundles()) <= 1 else OnDask(scheduler="threads")
    return OnDask()


def _inside_a_task() -> bool:
    from distributed import get_worker  # slow to import, and not needed for rows in memory

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _active_client() -> Any:
    from distributed import Client

    try:
        return Client.current()
    except ValueError:
        return None


def _itself(value: A) -> A:
    return value


def _merge(reduction: Reduction[A], *answers: tuple[A, Tally]) -> tuple[A, Tally]:
    return merge_answers(reduction, answers)


def _kernels(name: str) -> Kernels:
    # Modules do not travel; their names do.
    from daskmix.kernels import reference

    return {"compiled": compiled, "reference": reference}[name]


class OnDask:
    """Dask's own scheduling: threads by default, the active distributed client when there is one."""

    def __init__(self, scheduler: str | None = None, ops: str = "compiled") -> None:
        self.scheduler = scheduler
        self.ops = ops
        self.checked: frozenset[str] = frozenset()

    def run(self, reduction: Reduction[A], rows: Rows) -> tuple[A, Tally]:
        if self.scheduler is None:
            self._check_cluster()
        bundles = rows.bundles()
        if not bundles:
            return reduction.zero(), Tally(0, 0, 0)
        token = uuid4().hex
        question = f"daskmix-question-{token}"
        # A task, not a value: it travels to each worker once, and is done again should that worker be lost.
        tasks: dict[Any, Any] = {**rows.graph, question: (partial(_itself, reduction),)}
        answers: list[Any] = []
        for i, bundle in enumerate(bundles):
            key = (f"daskmix-read-{token}", i)
            needs = [name for part in bundle for name in part.needs]
            tasks[key] = (partial(_read, bundle, rows.missing, self.ops), question, *needs)
            answers.append(key)

        def merge(keys: Sequence[Any]) -> Any:
            key = (f"daskmix-merge-{token}", len(tasks))
            tasks[key] = (_merge, question, *keys)
            return key

        last = merge_tree(merge, answers)
        layer = f"daskmix-pass-{token}"
        graph = HighLevelGraph({layer: tasks}, {layer: set()})
        options = {} if self.scheduler is None else {"scheduler": self.scheduler}
        try:
            (result,) = dask.compute(Delayed(last, graph, layer=layer), traverse=False, **options)
        except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
            if isinstance(error, DaskmixError) or not rows.graph:
                raise
            # The rows' own tasks are Dask's here, and so are their errors.
            raise BadChunkError(
                f"a task that X is made of failed: {type(error).__name__}: {error}; compute X alone to see which"
            ) from error
        return result

    def _check_cluster(self) -> None:
        client = _active_client()
        if client is None:
            return
        if client.asynchronous:
            raise AsynchronousClientError(
                "the active Dask client is asynchronous, but a fit waits for its answers; use Client(address) without "
                "asynchronous=True, or run the fit in a thread"
            )
        workers = frozenset(client.scheduler_info(n_workers=-1)["workers"])
        if not self.checked or workers - self.checked:
            check_versions(client)
            self.checked = workers | {"scheduler"}


def _read(bundle: Sequence[Part], missing: Missing, ops: str, reduction: Reduction[A], *values: Any) -> tuple[A, Tally]:
    given, at = [], 0
    for part in bundle:
        given.append(values[at : at + len(part.needs)])
        at += len(part.needs)
    return answer_bundle(reduction, bundle, missing, _kernels(ops), given)


def check_versions(client: Any) -> None:
    """Compare the packages of client, scheduler and workers, and the workers' processors.

    Raises
    ------
    VersionMismatchError
        With the command that mends it.
    """
    versions = client.get_versions(packages=list(MUST_AGREE))
    here = versions["client"]["packages"]
    for who, facts in {"the scheduler": versions["scheduler"], **versions["workers"]}.items():
        there = {} if facts is None else facts["packages"]
        differs = [name for name in MUST_AGREE if there.get(name) != here[name]]
        if differs:
            seen = ", ".join(f"{name} {there.get(name) or 'missing'} (client: {here[name]})" for name in differs)
            remedy = " ".join(f"{name}=={here[name]}" for name in differs)
            raise VersionMismatchError(f"{who} has {seen}; run there: pip install {remedy}")
    processors = set(client.run(processor).values())
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
