"""A cluster of real processes, each started again when it ends, as Kubernetes would; and the driver of a fit on it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

from chaos.processes import ROOT, Process, answers, free_ports, wait_until

DASK = Path(sys.executable).parent / "dask"
LOOPBACK = "127.0.0.1"


def recommended() -> dict[str, str]:
    """Dask's settings in the manifests under deploy/."""
    page = yaml.safe_load((ROOT / "deploy/job/kustomization.yaml").read_text())
    (literals,) = (each["literals"] for each in page["configMapGenerator"] if each["name"] == "daskmix-dask")
    return dict(line.split("=", 1) for line in literals)


class Deployment:
    """One process that is started again when it ends, whatever ended it."""

    def __init__(self, start: Callable[[], Process]) -> None:
        self._start, self._ended = start, threading.Event()
        self.starts = 1
        self.process = start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        while not self._ended.wait(0.1):
            if not self.process.running:
                self.process.end()  # what is left of its group
                self.process = self._start()
                self.starts += 1

    def end(self) -> None:
        self._ended.set()
        self._keeper.join()
        self.process.end()


@dataclass
class Cluster:
    """A scheduler and workers with nannies."""

    folder: Path
    workers: int = 2
    threads: int = 1  # of each worker
    host: str = LOOPBACK
    env: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()  # of `dask worker`
    inside: Sequence[Sequence[str]] = ((),)  # words before each command: where the scheduler lives, and each worker
    scratch: Path | None = None

    def __enter__(self) -> Self:
        (self.port,) = free_ports(1)
        scratch = self.scratch or self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        env = recommended() | {"OMP_NUM_THREADS": "1"} | dict(self.env)
        places = [self.inside[i % len(self.inside)] for i in range(self.workers)]
        serving = [
            DASK, "scheduler", "--host", self.host, "--port", self.port, "--no-dashboard", "--no-jupyter",
            "--dashboard-address", f"{LOOPBACK}:0",
        ]  # fmt: skip
        working = [
            DASK, "worker", self.address, "--nthreads", self.threads, "--memory-limit", "1GB", "--death-timeout", "60",
            "--local-directory", scratch, "--no-dashboard", *self.options,
        ]  # fmt: skip
        self.scheduler = Deployment(lambda: Process("scheduler", [*self.inside[0], *serving], self.folder, env))
        self.nannies = [
            Deployment(lambda i=i, place=place: Process(f"worker-{i}", [*place, *working], self.folder, env))
            for i, place in enumerate(places)
        ]
        return self

    def __exit__(self, *failure: object) -> None:
        for one in (*self.nannies, self.scheduler):
            one.end()

    @property
    def address(self) -> str:
        return f"tcp://{self.host}:{self.port}"

    def wait_for_workers(self, count: int | None = None, seconds: float = 60) -> None:
        from distributed import Client

        wait_until("the scheduler listens", lambda: answers(self.host, self.port), seconds)
        with Client(self.address) as client:
            client.wait_for_workers(self.workers if count is None else count, timeout=seconds)

    def processes(self) -> list[psutil.Process]:
        """The workers themselves, children of their nannies."""
        return [worker for nanny in self.nannies for worker in workers_of(nanny.process.pid)]


def workers_of(pid: int) -> list[psutil.Process]:
    """Processes below this one in which a nanny, or a LocalCluster, runs workers."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
    return found


@dataclass(frozen=True)
class Job:
    """The driver's command: the same one each time."""

    store: str
    folder: Path
    iterations: int
    options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    inside: Sequence[str] = ()
    run: Mapping[str, Any] = field(default_factory=dict)
    name: str = "driver"
    lasting: bool = False  # it fits again and again until `enough`

    def start(self) -> Process:
        command = [
            *self.inside, sys.executable, "-m", "chaos.driver", self.store, self.result,
            "--iterations", self.iterations, "--run", json.dumps(dict(self.run)), *self.options,
        ]  # fmt: skip
        until = ("--until", self._enough) if self.lasting else ()
        return Process(self.name, [*command, *until], self.folder, {**recommended(), **self.env})

    @property
    def _enough(self) -> Path:
        return self.folder / f"{self.name}.enough"

    def enough(self) -> None:
        """The round that is under way is the last."""
        self._enough.touch()

    @property
    def result(self) -> Path:
        return self.folder / f"{self.name}.json"

    def found(self) -> Any:
        """What it wrote, once it has ended well; in all rounds the same."""
        first, *others = json.loads(self.result.read_text())
        assert all(other == first for other in others)
        return first


def has_told(driver: Process, line: str) -> Callable[[], bool]:
    """Whether the driver got as far as this pass, as "full 3"."""

    def told() -> bool:
        if not driver.running:
            raise AssertionError(f"the driver ended before {line!r}:\n{driver.said[-4000:]}")
        return line in driver.said.splitlines()

    return told


def ended_well(driver: Process, seconds: float) -> None:
    """The driver came to its end by itself."""
    code = driver.wait(seconds)
    assert code == 0, f"the driver ended with {code}:\n{driver.said[-4000:]}"


def kill(process: psutil.Process | Process) -> None:
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)


def daskmix(*words: object, env: Mapping[str, str] | None = None, seconds: float = 100) -> Any:
    """The command line, to its end; with nothing in its environment that was not asked for."""
    command = [sys.executable, "-m", "daskmix.cli", *map(str, words)]
    bare = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=bare | dict(env or {}), capture_output=True, text=True, timeout=seconds)


def killed_in_turn(job: Job, times: int, chance: random.Random) -> None:
    """The same command, killed each time: before it has read anything, in the middle of a pass, or as it commits."""
    for _ in range(times):
        with job.start() as driver:
            before, more = passes_told(driver), chance.randrange(9)

            def far_enough(driver: Process = driver, passes: int = before + more) -> bool:
                return passes_told(driver) >= passes or not driver.running

            wait_until(f"{more} more passes", far_enough)
            time.sleep(chance.uniform(0, 0.3 if more else 6))
            assert driver.running, f"the driver ended before it was killed:\n{driver.said[-4000:]}"


def passes_told(driver: Process) -> int:
    """By all drivers of this name so far."""
    return len(re.findall(r"^(kmeans|full|diag) \d+$", driver.said, re.MULTILINE))
