"""Labels that were cut off go on: what is written stays, and the store comes out as if nothing had happened."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from chaos.cluster import Cluster, daskmix, kill
from chaos.conftest import CHUNKS
from chaos.processes import Process, wait_until

TEMPORARY = 75  # exit code


def regions(labels: Path) -> dict[str, int]:
    """When each chunk of labels was written last, in ns."""
    return {path.name: path.stat().st_mtime_ns for path in (labels / "label" / "c").glob("*") if path.name.isdigit()}


def when_quiet(labels: Path) -> dict[str, int]:
    """The same, once workers have ended what they were at."""
    before: dict[str, int] = {}
    while before != (before := regions(labels)):
        time.sleep(2)
    return before


@pytest.fixture
def predict(store, tmp_path) -> Callable[..., Process]:
    """The command, begun."""
    model = tmp_path / "model.zarr"
    fit = ["fit", store, "--model", "gmm", "-k", "4", "--random-state", "0", "--max-iter", "4", "--quiet"]
    assert daskmix(*fit, "--out", model).returncode == 0

    def begin(labels: Path, *options: str) -> Process:
        words = [model, store, "--out", labels, "--probabilities", *options]
        return Process("predict", [sys.executable, "-m", "daskmix.cli", "predict", *words], tmp_path)

    return begin


@pytest.mark.limit(300)
def test_labels_go_on_after_kills_of_driver_and_scheduler(predict, tmp_path):
    undisturbed, labels = tmp_path / "undisturbed.zarr", tmp_path / "labels.zarr"
    with predict(undisturbed) as process:
        assert process.wait(60) == 0
    written: dict[str, int] = {}
    with Cluster(tmp_path) as cluster:
        cluster.wait_for_workers()
        for victim in ("driver", "driver", "scheduler"):
            with predict(labels, "--scheduler", cluster.address) as process:
                before = len(written)

                def further(process: Process = process, least: int = before + 8) -> bool:
                    assert process.running, process.said
                    return len(regions(labels)) >= least

                wait_until("more is written", further)
                if victim == "driver":
                    process.send(signal.SIGKILL)
                    assert process.wait(30) == -signal.SIGKILL
                else:
                    kill(cluster.scheduler.process)
                    assert process.wait(100) == TEMPORARY, process.said
            written = when_quiet(labels)
            assert before < len(written) < CHUNKS
        cluster.wait_for_workers()
        with predict(labels, "--scheduler", cluster.address) as process:
            assert process.wait(100) == 0, process.said
    again = [name for name, at in regions(labels).items() if written.get(name, at) != at]
    assert len(again) <= 2  # at most those that both workers were at
    for name in ("label", "probability"):
        expected, found = (zarr.open_group(path, mode="r")[name][...] for path in (undisturbed, labels))
        np.testing.assert_array_equal(found, expected)
