"""The model of a pass, and what a pass of many chunks may not do: rebuild, read too much, send the model twice."""

import pickle
import re
import subprocess
import sys
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

import distributed.client
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from distributed.protocol import serialize
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.costs import Costs, Job, pass_seconds, workers_at_most
from daskmix.block import Missing, table
from daskmix.engines.dask import OnDask
from daskmix.engines.local import Local
from daskmix.reduction import FAN_IN, Reduction
from daskmix.rows import Part, Rows, bundle_bytes
from daskmix.sources.zarr import RUN, open_path, rows_from_stored_array

MB = 1e6
COSTS = Costs(decode=4e-9, chunk=5e-4, task=2e-3, schedule=1e-3, merge=1e-9, travel=1e-9, step=5e-3)
JOB = Job(nbytes=64e9, chunk=8e6, bundle=128e6, compute=1e-9, answer=1e6, model=1e6, solve=0.1)
CHUNKS = 100_000


def test_a_pass_of_eight_bundles_on_two_workers_by_hand():
    job = Job(nbytes=8 * MB, chunk=0.5 * MB, bundle=1 * MB, compute=1e-6, answer=1000, model=2000, solve=0.5)
    costs = Costs(decode=2e-6, chunk=0.01, task=0.1, schedule=0.05, merge=1e-5, travel=3e-5, step=0.2)
    assert (job.chunks, job.bundles, job.levels, job.tasks, job.sent) == (16, 8, (1,), 10, 8000)
    split = pass_seconds(costs, job, workers=2)
    by_hand = {
        "decode": 8.0,  # 4 of 8 bundles, 4 MB at 2 s per MB
        "read": 0.08,
        "compute": 4.0,
        "tasks": 0.6,  # the question, 4 bundles and the one merge
        "merge": 0.2,  # 5 answers of 1 kB, at 40 s per MB
        "wait": 0.0,
        "spread": 0.06,
        "tail": 0.2 + 7 * 1000 * 4e-5,
        "solve": 0.5,
    }
    assert asdict(split) == pytest.approx(by_hand)


def test_the_terms_add_up_and_the_busiest_process_sets_the_pace():
    split = pass_seconds(replace(COSTS, schedule=1.0), JOB, workers=100)
    assert split.seconds == pytest.approx(sum(astuple(split)))
    at_work = split.decode + split.read + split.compute + split.tasks + split.merge
    assert at_work + split.wait == pytest.approx(JOB.tasks * 1.0)


def test_processes_that_share_cores_take_as_long_as_their_work_does():
    alone, shared = pass_seconds(COSTS, JOB, 1, cores=1), pass_seconds(COSTS, JOB, 16, cores=1)
    assert alone.wait == pytest.approx(JOB.tasks * COSTS.schedule)
    busy = [s.decode + s.read + s.compute + s.tasks + s.merge + s.wait for s in (alone, shared)]
    assert busy[0] == pytest.approx(busy[1])


def test_beyond_the_limit_of_the_scheduler_workers_wait():
    large = replace(JOB, nbytes=64e12)
    limit = workers_at_most(COSTS, large)
    assert pass_seconds(COSTS, large, int(limit / 2)).wait == 0
    assert pass_seconds(COSTS, large, int(2 * limit)).wait > 0


@example(128000001.0, 1.5, 2)  # two bundles, one of them of a single byte
@given(st.floats(1e8, 1e14), st.floats(1, 10), st.integers(1, 2000))
def test_more_bytes_never_take_less(nbytes, times, workers):
    def seconds(size):
        return pass_seconds(COSTS, replace(JOB, nbytes=size), workers).seconds

    assert seconds(nbytes * times) >= seconds(nbytes) * (1 - 1e-9)


@given(st.floats(1e8, 1e14), st.integers(1, 2000), st.integers(0, 2000))
def test_more_workers_never_take_longer_where_the_model_is_small(nbytes, workers, more):
    job = replace(JOB, nbytes=nbytes, model=0)
    fewer = pass_seconds(COSTS, job, workers).seconds
    assert pass_seconds(COSTS, job, workers + more).seconds <= fewer * (1 + 1e-9)


@dataclass(frozen=True)
class Nothing(Reduction):
    """Asks nothing; carries so many bytes of a model."""

    model: np.ndarray

    def zero(self):
        return 0

    def map(self, block, ops):
        return 0


def nothing():
    return [np.empty((0, 4), np.float32)], None


def empty_rows(bundles):
    """Rows of which there are none, in parts that each fill a bundle."""
    parts = tuple(Part(i, table(0, 0, 0), 4, nothing, nbytes=128 << 20) for i in range(bundles))
    return Rows(parts, 4, np.dtype(np.float32), 0, in_memory=False)


def test_beyond_tens_of_terabytes_bundles_grow_and_not_their_number():
    part = empty_rows(1).parts[0]
    most = 1 << 16
    for n, bundles in ((most // 2, most // 2), (most, most), (4 * most, most), (5 * most, most)):
        rows = replace(empty_rows(1), parts=(part,) * n)
        assert len(rows.bundles) == bundles
        assert bundle_bytes(rows.nbytes) == max(128 << 20, rows.nbytes // most)


def test_the_rule_and_the_tree_of_the_model_are_those_of_the_engine():
    for n in (1, 8, 9, 300):
        rows = empty_rows(n)
        assert bundle_bytes(rows.nbytes) >= 8 << 20
        job = Job(rows.nbytes, 128 << 20, 128 << 20, 0, 0, 0, 0)
        tasks, _ = OnDask()._graph(Nothing(np.zeros(1)), rows, rows.bundles)
        assert (job.bundles, job.tasks) == (len(rows.bundles), len(tasks))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A store of 100,000 chunks of a MiB, none of which was written: all read as the fill value."""
    path = tmp_path_factory.mktemp("many") / "x.zarr"
    rows = RUN // 16
    zarr.create_array(path, shape=(CHUNKS * rows, 4), chunks=(rows, 4), dtype="f4", compressors=None)
    return str(path)


def test_to_know_where_100_000_chunks_are_opens_the_store_once_and_reads_none(many, monkeypatch):
    opened, opens, got, gets = [], zarr.open, [], zarr.Array.__getitem__
    monkeypatch.setattr(zarr, "open", lambda *a, **o: opened.append(a) or opens(*a, **o))
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda a, where: got.append(gets(a, where).size) or gets(a, where))
    rows = rows_from_stored_array(open_path(many), None, Missing.refuse)
    assert len(opened) == 1
    assert sum(got) == 0  # Dask asks for a slice of no rows, to see what they are
    assert len(rows.parts) == CHUNKS
    assert len(rows.graph) == 0
    tasks, _ = OnDask()._graph(Nothing(np.zeros(1)), rows, rows.bundles)
    # The question, and at each level of the tree a last merge of fewer answers.
    assert len(tasks) <= len(rows.bundles) * FAN_IN / (FAN_IN - 1) + 5
    assert sum(map(len, rows.bundles)) == CHUNKS


def test_a_chunk_adds_little_to_the_task_that_reads_it(many):
    rows = rows_from_stored_array(open_path(many), None, Missing.refuse)
    few, more = (len(pickle.dumps(rows.parts[:n])) for n in (100, 1100))
    assert (more - few) / 1000 <= 128


@pytest.mark.parametrize("engine", [Local(), OnDask(scheduler="threads")])
def test_no_pass_rebuilds_bundles(engine, monkeypatch):
    rows = empty_rows(20)
    engine.run(Nothing(np.zeros(1)), rows)
    before = engine.shelves.of(rows)
    monkeypatch.setattr("daskmix.engines.local.Held", lambda *_, **__: pytest.fail("a bundle was made again"))
    # A pass may learn that no row is missing; the parts are the same.
    later = replace(rows, missing=Missing.trust)
    engine.run(Nothing(np.zeros(1)), later)
    assert engine.shelves.of(later) is before


def test_on_a_cluster_the_model_travels_once_to_each_worker(monkeypatch):
    sizes = []

    def weigh(graph, **options):
        header, frames = serialize(graph, **options)
        sizes.append(sum(memoryview(frame).nbytes for frame in frames))
        return header, frames

    monkeypatch.setattr(distributed.client, "serialize", weigh)
    model, engine, rows = np.zeros(1 << 17), OnDask(), empty_rows(60)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        for _ in range(2):
            engine.run(Nothing(model), rows)
        received = client.run(_questions_received)
        pinned = [f.key for futures in engine._pinned.values() for f in futures]
        engine.run(Nothing(model), rows)
        assert pinned == [f.key for futures in engine._pinned.values() for f in futures]
        engine.close()
    first, second, *_ = sizes
    assert model.nbytes < second < model.nbytes + 60 * 1500
    assert second <= first
    assert max(received.values()) <= 2  # passes


def _questions_received(dask_worker):
    incoming = [key for entry in dask_worker.transfer_incoming_log for key in entry["keys"]]
    return sum(str(key).startswith("daskmix-question") for key in incoming)


def test_a_quick_simulation_writes_the_whole_page(tmp_path):
    page = tmp_path / "docs" / "scaling.md"
    command = [sys.executable, "-m", "benchmarks.simulate", "--quick", f"--write={page}"]
    run = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout == page.read_text()
    titles = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
    assert titles == [
        "What follows", "The constants", "A store of 1,000 chunks", "A cluster with nothing to do", "What it predicts",
        "Workers that one scheduler keeps busy", "What the rule of bundles does", "What the fan-in does",
        "Memory of client and scheduler",
    ]  # fmt: skip
    for table_ in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE):
        assert len({line.count("|") for line in table_.splitlines()}) == 1
