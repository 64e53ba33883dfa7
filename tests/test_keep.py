"""Chunks are decoded once, kept within limits, and let go; what is kept changes no bit."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from dask.sizeof import sizeof
from distributed import Client, LocalCluster

from daskmix import GaussianMixture, KMeans, Run
from daskmix.block import Missing
from daskmix.engines import keep
from daskmix.engines.keep import Held, Keep, filesystem, keep_for, narrowed, scratch_folder
from daskmix.engines.local import answer_bundle
from daskmix.errors import InputError, ScratchFullWarning
from daskmix.kernels import compiled
from daskmix.sampling import Summarise
from daskmix.sources.dask import rows_from_dask_array
from daskmix.sources.zarr import open_path, rows_from_stored_array

ROWS, D, CHUNKS = 500, 4, 24
CHUNK_BYTES = ROWS * D * 8


@pytest.fixture(autouse=True)
def small_bundles(monkeypatch):
    monkeypatch.setattr("daskmix.rows.SMALL", 3 * CHUNK_BYTES)
    monkeypatch.setattr("daskmix.sources.zarr.RUN", 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "x.zarr"
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS * CHUNKS, D)) + 4 * rng.integers(0, 3, (ROWS * CHUNKS, 1))
    array = zarr.create_array(path, shape=x.shape, chunks=(ROWS, D), dtype=x.dtype)
    array[:] = x
    return str(path)


def bits(path, run, **options):
    """Everything that a fit found, as bytes; and the fit."""
    model = GaussianMixture(3, random_state=0, tol=0, max_iter=4, run=run, **options).fit(path)
    return b"".join(a.tobytes() for a in (model.means_, model.covariances_, np.array(model.lower_bound_))), model


@pytest.fixture(scope="module")
def right(store):
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr("daskmix.rows.SMALL", 3 * CHUNK_BYTES)
        patch.setattr("daskmix.sources.zarr.RUN", 1)
        return bits(store, Run(cache="off"))[0]


CASES = [
    Run(cache="memory"),
    Run(cache="disk"),
    Run(cache="auto", cache_limit=7 * CHUNK_BYTES),
    Run(cache="memory", cache_limit=7 * CHUNK_BYTES),
    Run(cache="disk", cache_limit=7 * CHUNK_BYTES),
    Run(cache="auto", cache_limit=0),
]


@pytest.mark.parametrize("run", CASES, ids=lambda run: f"{run.cache} {run.cache_limit}")
def test_what_is_kept_changes_no_bit(store, right, run):
    found, model = bits(store, run)
    assert found == right
    decoded = [record["decoded"] // CHUNK_BYTES for record in model.history_]
    kept = 7 if run.cache_limit and run.cache != "auto" else CHUNKS
    assert decoded == [CHUNKS] + [CHUNKS - kept] * (len(decoded) - 1)


@pytest.mark.parametrize("run", CASES, ids=lambda run: f"{run.cache} {run.cache_limit}")
def test_limits_hold_and_all_is_let_go_with_the_fit(store, run):
    seen = []
    watched = Run(
        run.cache, run.cache_limit, callbacks=(lambda _: seen.append((keep._shelf.memory, keep._shelf.disk)),)
    )
    bits(store, watched)
    memory, disk = max(m for m, _ in seen), max(d for _, d in seen)
    assert memory == {"disk": 0}.get(
        run.cache, CHUNK_BYTES * (CHUNKS if run.cache_limit is None else run.cache_limit // CHUNK_BYTES)
    )
    if run.cache == "auto":
        assert memory + disk == CHUNKS * CHUNK_BYTES
    if run.cache == "disk" and run.cache_limit:
        assert disk == run.cache_limit
    assert (keep._shelf.memory, keep._shelf.disk) == (0, 0)


def a_held(dtype, how, weights=None):
    x = np.random.default_rng(0).integers(0, 100, (300, 3)).astype(dtype)
    lazy = da.from_array(x, chunks=(100, 3)).map_blocks(np.copy)
    rows = rows_from_dask_array(lazy, weights, Missing.drop)
    return x, Held(rows.parts, how)


@pytest.mark.parametrize(
    ("dtype", "bytes_each"), [("int16", 2), ("uint8", 1), ("int32", 4), ("float32", 4), ("float64", 4)]
)
@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_rows_are_kept_in_the_smallest_type_that_holds_them(dtype, bytes_each, cache):
    x, held = a_held(dtype, keep_for(cache, None, None))
    before = keep._shelf.memory + keep._shelf.disk
    first = [block for block, _ in held.blocks(Missing.drop, ())]
    assert keep._shelf.memory + keep._shelf.disk - before == 300 * 3 * bytes_each
    again = [(block, read) for block, read in held.blocks(Missing.drop, ())]
    assert sum(read.decoded for _, read in again) == 0
    for one, (other, _) in zip(first, again, strict=True):
        assert one.x.dtype == other.x.dtype
        np.testing.assert_array_equal(one.x, other.x)
        assert one.place == other.place
    np.testing.assert_array_equal(np.concatenate([block.x for block, _ in again]), x)


def test_float64_that_is_no_float32_stays_float64():
    x = np.array([[1.0, 1.0 + 2.0**-40]])
    assert narrowed(x, x.dtype).dtype == np.float64
    assert narrowed(np.array([[1e300, 1.0]]), x.dtype).dtype == np.float64
    assert narrowed(x[:, :1], x.dtype).dtype == np.float32


def test_whole_numbers_of_eight_bytes_are_kept_as_they_are_computed_on():
    for source in (np.uint64, np.int64):
        most = np.array([[np.iinfo(source).max, 1]], dtype=source)
        x = most.astype(np.float64)  # one more than that type holds
        np.testing.assert_array_equal(narrowed(x, most.dtype).astype(np.float64), x)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_rows_left_out_and_weights_are_kept_too(cache):
    x = np.random.default_rng(0).standard_normal((300, 3))
    x[[5, 250], 1] = np.nan
    w = np.random.default_rng(1).random(300)
    lazy = da.from_array(x, chunks=(100, 3)).map_blocks(np.copy)
    held = Held(rows_from_dask_array(lazy, w, Missing.drop).parts, keep_for(cache, None, None))
    first, again = ([block for block, _ in held.blocks(Missing.drop, ())] for _ in range(2))
    assert [block.missing for block in again] == [block.missing for block in first] == [1, 0, 1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.x, other.x)
        np.testing.assert_array_equal(one.w, other.w)


def test_a_copy_leaves_the_rows_behind_and_reads_them_again():
    x, held = a_held("float64", keep_for("memory", None, None))
    for _ in held.blocks(Missing.drop, ()):
        pass
    assert sizeof(held) >= 300 * 3 * 4
    message = pickle.dumps(held)
    copy = pickle.loads(message)
    assert sizeof(copy) < 300
    blocks = list(copy.blocks(Missing.drop, ()))
    np.testing.assert_array_equal(np.concatenate([block.x for block, _ in blocks]), x)
    assert all(read.decoded for _, read in blocks)


def test_the_next_chunk_is_read_while_this_one_is_computed_on():
    slow = 0.1

    def wait(x):
        time.sleep(slow)
        return x.copy()

    lazy = da.from_array(np.ones((500, 2)), chunks=(100, 2)).map_blocks(wait, meta=np.empty((0, 0)))
    parts = rows_from_dask_array(lazy, None, Missing.trust).parts
    began = time.perf_counter()
    for _ in Held(parts, ahead=True).blocks(Missing.trust, ()):
        time.sleep(slow)
    assert time.perf_counter() - began < 8 * slow  # one after the other takes ten


@pytest.mark.parametrize("fails", ["a row", "the kernel"])
def test_whoever_reads_ahead_has_ended_when_a_task_fails(store, fails, monkeypatch):
    class Failing(Summarise):
        def map(self, block, ops):
            raise ArithmeticError

    monkeypatch.setattr("daskmix.sources.zarr.RUN", 1)
    parts = rows_from_stored_array(open_path(store), None, Missing.refuse).parts[:4]
    bad = np.full((parts[0].place.rows, parts[0].d), np.nan)
    first = replace(parts[0], load=lambda: ([bad], None)) if fails == "a row" else parts[0]
    gc.disable()  # what it would end by itself, it ends in any thread
    try:
        with pytest.raises((ArithmeticError, InputError)) as caught:
            answer_bundle(Failing(parts[0].d), Held([first, *parts[1:]], ahead=True), Missing.refuse, compiled)
        assert caught.value.__traceback__ is not None
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("daskmix-read")]
    finally:
        gc.enable()


def test_rows_in_memory_are_not_kept_twice():
    kept = []
    run = Run(callbacks=(lambda _: kept.append(keep._shelf.memory + keep._shelf.disk),))
    x = np.random.default_rng(0).standard_normal((3000, 4))
    KMeans(2, random_state=0, run=run).fit(x)
    KMeans(2, random_state=0, run=run).fit(da.from_array(x, chunks=(500, 4)))
    assert set(kept) == {0}


def test_a_source_as_fast_as_a_disk_is_not_copied_to_one(store, monkeypatch):
    monkeypatch.setattr(keep, "FAST", 0.0)
    for cache, kept in (("auto", 0), ("disk", CHUNKS)):
        seen = []
        run = Run(
            cache, 0 if cache == "auto" else None, callbacks=(lambda _, seen=seen: seen.append(keep._shelf.disk),)
        )
        bits(store, run)
        assert max(seen) == kept * CHUNK_BYTES


SCRIPT = """
import os, resource, signal, sys, warnings
import daskmix.rows, daskmix.sources.zarr
from daskmix import KMeans, Run
daskmix.rows.SMALL, daskmix.sources.zarr.RUN = {small}, 1
{before}
"""


def script(before):
    return [sys.executable, "-c", SCRIPT.format(small=3 * CHUNK_BYTES, before=before)]


def test_full_scratch_degrades_to_decoding_again_with_one_warning(store, tmp_path):
    # The operating system refuses to let the file grow, as a full disk would.
    out = subprocess.run(
        script(f"""
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({5 * CHUNK_BYTES + 100},) * 2)
from daskmix.errors import ScratchFullWarning
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always", ScratchFullWarning)
    run = Run(cache="disk", scratch={str(tmp_path)!r})
    model = KMeans(3, random_state=0, tol=0, max_iter=3, run=run).fit({store!r})
print([str(w.message) for w in seen if w.category is ScratchFullWarning])
print([r["decoded"] // {CHUNK_BYTES} for r in model.history_], model.inertia_)
"""),
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    warned, rest = out.splitlines()
    assert warned.count("scratch could not be written") == 1
    decoded, inertia = rest.rsplit(" ", 1)
    counts = [int(c) for c in decoded.strip("[]").split(",")]
    assert counts[0] == CHUNKS
    assert all(CHUNKS - 5 <= count < CHUNKS for count in counts[1:])
    assert float(inertia) == KMeans(3, random_state=0, tol=0, max_iter=3).fit(store).inertia_


def test_a_crash_leaves_nothing_in_scratch(store, tmp_path):
    killed = subprocess.run(
        script(f"""
def die(record):
    if record["pass"] == 2:
        from daskmix.engines.keep import _shelf
        print(_shelf.disk, os.listdir({str(tmp_path)!r}), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
KMeans(3, random_state=0, run=Run(cache="disk", scratch={str(tmp_path)!r}, callbacks=(die,))).fit({store!r})
"""),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.startswith(str(CHUNKS * CHUNK_BYTES))
    assert os.listdir(tmp_path) == []


def test_by_default_scratch_is_never_in_memory_or_on_a_network():
    assert filesystem(keep.Path("/proc")) == "proc"
    on_disk = scratch_folder(Keep(disk=True))
    assert on_disk is None or filesystem(on_disk) not in keep.UNFIT_FOR_SCRATCH
    if os.path.isdir("/dev/shm") and filesystem(keep.Path("/dev/shm")) == "tmpfs":
        with dask.config.set({"temporary-directory": "/dev/shm"}):
            assert scratch_folder(Keep(disk=True)) is None
        assert scratch_folder(Keep(disk=True, scratch="/dev/shm")) is not None  # whoever asks for it gets it


def counted(path, log):
    """The rows of a store, each chunk of which adds its number to a file when it is read."""

    def note(x, block_info=None):
        with open(log, "a") as file:
            file.write(f"{block_info[0]['chunk-location'][0]}\n")
        return x

    return da.from_zarr(path).map_blocks(note, dtype=float, meta=np.empty((0, 0)))


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_on_a_cluster_each_chunk_is_decoded_once_and_let_go(store, right, tmp_path, cache):
    log = tmp_path / "reads"
    with LocalCluster(2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        found, model = bits(counted(store, log), Run(cache=cache))
        assert found == right
        reads = log.read_text().split()
        # A bundle that was moved to an idle worker is decoded again there; nothing else is.
        assert len(reads) < 2 * CHUNKS
        assert set(reads) == {str(i) for i in range(CHUNKS)}
        assert CHUNKS * CHUNK_BYTES <= model.bytes_read_ <= len(reads) * CHUNK_BYTES
        del model

        def left():
            from daskmix.engines.keep import _shelf

            return _shelf.memory + _shelf.disk

        deadline = time.time() + 20
        while any(client.run(left).values()) and time.time() < deadline:
            gc.collect()
            time.sleep(0.1)
        assert set(client.run(left).values()) == {0}


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="did you mean 'memory'"):
        Run(cache="mem")
    for bad in ({"cache": "ram"}, {"cache_limit": -1}, {"cache_limit": 1.5}):
        with pytest.raises(InputError):
            Run(**bad)


def test_scratch_is_looked_for_where_it_is_used(store, right, tmp_path):
    nowhere = Run(cache="disk", scratch=tmp_path / "nowhere")
    with pytest.raises(InputError, match="no folder on this machine"):
        bits(store, nowhere)
    with (
        LocalCluster(1, threads_per_worker=1, local_directory=tmp_path, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        # A folder that only the workers lack is no reason to fail: they do without, and keep count of nothing.
        with pytest.warns(ScratchFullWarning, match="no such folder"):
            found, model = bits(store, nowhere)
        assert found == right
        assert model.bytes_read_ == model.n_passes_ * CHUNKS * CHUNK_BYTES
        assert client.submit(lambda: keep._shelf.disk).result() == 0
        folder = client.submit(lambda: str(scratch_folder(Keep(disk=True)))).result()
        assert folder.startswith(str(tmp_path))
