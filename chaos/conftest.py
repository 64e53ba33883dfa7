"""What all faults share: the store, what an undisturbed fit finds, a limit of time, and logs kept after a failure."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from chaos.cluster import Job, ended_well

LOGS = Path(os.environ.get("CHAOS_LOGS", "chaos-logs"))
CHUNKS, ROWS, FEATURES = 60, 32768, 4


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "limit(seconds): how long this scenario may take; 120 by default")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = (yield).get_result()
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.when == "call" and report.failed and folder:
        kept = LOGS / item.name.replace("/", "-")
        for log in Path(folder).rglob("*.log"):
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, kept / log.name)


@pytest.fixture(autouse=True)
def _in_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """A scenario that hangs fails."""
    marker = request.node.get_closest_marker("limit")
    seconds = marker.args[0] if marker else 120

    def late(number: int, frame: Any) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def write_rows(place: Any, seed: int = 0) -> None:
    """Sixty chunks of four blobs that overlap, each chunk with a checksum."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((CHUNKS * ROWS, FEATURES)) + 2.5 * rng.integers(0, 4, (CHUNKS * ROWS, 1))
    codecs = [zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()]
    array = zarr.create_array(place, shape=x.shape, chunks=(ROWS, FEATURES), dtype=x.dtype, compressors=codecs)
    array[:] = x


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("rows") / "x.zarr"
    write_rows(path)
    return str(path)


@pytest.fixture(scope="session")
def undisturbed(store: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Any]:
    """What the command finds after so many iterations when nothing happens, by threads of one process."""

    @cache
    def found(iterations: int) -> Any:
        job = Job(store, tmp_path_factory.mktemp("undisturbed"), iterations)
        with job.start() as driver:
            ended_well(driver, 300)
        return job.found()

    return found
