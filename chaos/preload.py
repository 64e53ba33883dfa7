"""A worker that kills itself at one moment of a fit: `dask worker --preload`; CHAOS_AT says when, as "read:3"."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from distributed import Worker, WorkerPlugin


class KillAt(WorkerPlugin):
    """SIGKILL, by its own hand, when it begins a task of a kind in a pass; once among all workers.

    Passes are counted from the worker's start, by the tokens in the keys of their tasks.
    """

    def __init__(self, at: str, done: Path) -> None:
        self.kind, number = at.split(":")
        self.number, self.done = int(number), done
        self.passes: set[str] = set()

    def setup(self, worker: Worker) -> None:
        self.worker = worker

    def transition(self, key: Any, start: str, finish: str, **more: Any) -> None:
        name = key[0] if isinstance(key, tuple) else key
        if finish != "executing" or not name.startswith(f"daskmix-{self.kind}-"):
            return
        self.passes.add(name)
        if len(self.passes) == self.number and self._first():
            os.kill(os.getpid(), signal.SIGKILL)

    def _first(self) -> bool:
        try:
            self.done.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


async def dask_setup(worker: Worker) -> None:
    await worker.plugin_add(plugin=KillAt(os.environ["CHAOS_AT"], Path(os.environ["CHAOS_DONE"])), name="kill-at")
