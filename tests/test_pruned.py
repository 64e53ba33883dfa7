"""What K-means remembers of its rows spares distances and changes no bit."""

import os
import signal
import threading
import time
from dataclasses import replace

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskmix import KMeans, Run, testing
from daskmix.centroids import Assign, Centroids
from daskmix.engines import keep
from daskmix.engines.keep import NOTHING
from daskmix.engines.local import Local
from daskmix.kernels import Frame, compiled, pruned, reference
from daskmix.reduction import Together

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def bounds_from_the_first_pass_on(monkeypatch):
    """However few and restless the centres are."""
    monkeypatch.setattr(pruned, "RUNNING", np.inf)
    monkeypatch.setattr(pruned, "ENOUGH", 0.0)
    monkeypatch.setattr("daskmix.algorithms.lloyd.MANY", 1)
    monkeypatch.setattr("daskmix.algorithms.lloyd.NUMBERS", 1)


def same_bits(a, b):
    return all(np.array_equal(x, y, equal_nan=True) for x, y in zip(a, b, strict=True))


@st.composite
def iterations(draw):
    """Rows, weights, a frame and the centres of some passes: smooth or full of ties, still or restless."""
    n, d, k = draw(st.integers(1, 800)), draw(st.integers(1, 20)), draw(st.integers(1, 50))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.standard_normal((n, d)) * 2 + draw(st.sampled_from([0.0, 100.0]))
    c = x[rng.integers(0, n, k)] + rng.standard_normal((k, d)) * draw(st.sampled_from([0.0, 0.1, 3.0]))
    if draw(st.booleans()):  # quarters: ties, and rows and centres that are equal
        x, c = np.round(4 * x) / 4, np.round(4 * c) / 4
        x[rng.random(n) < 0.3] = x[0]
    if draw(st.booleans()):
        c[rng.integers(0, k)] = c[0]
    w = rng.integers(0, 3, n).astype(float) if draw(st.booleans()) else None
    frame = Frame(np.full(d, np.round(x.mean())), np.full(d, draw(st.sampled_from([0.5, 1.0]))))
    x, c = x.astype(dtype), frame.enter(c)
    return x, w, frame, [c + step * rng.standard_normal((k, d)) for step in (0, 1e-7, 0.0, 1e-2, 0.3, 0.3, 1e-3)]


def test_centres_that_rounding_cannot_tell_apart_are_chosen_alike_by_both_kernels():
    # Each kernel is compiled with a copy of the same loop; the two copies once rounded differently here.
    x, frame = np.array([[0.25146043]], np.float32), Frame(np.zeros(1), np.full(1, 0.5))
    centres = np.array([[0.12573009], [0.12573016], [0.12573023], [0.12572999]])
    found, _, _ = compiled.assign_again(x, None, frame, centres, 3, None)
    (plain,) = compiled.assign(x, None, frame, [centres], [3])
    assert same_bits(found, plain)


@QUICK
@given(iterations(), st.lists(st.booleans(), min_size=7, max_size=7))
def test_bounds_change_no_bit_of_an_assignment_lost_or_made_for_other_centres(drawn, lost):
    x, w, frame, passes = drawn
    bounds = None
    for centres, gone in zip(passes, lost, strict=True):
        without, _, _ = compiled.assign_again(x, w, frame, centres, 5, None)
        found, bounds, _ = compiled.assign_again(x, w, frame, centres, 5, None if gone else bounds)
        assert same_bits(found, without)
        (plain,) = compiled.assign(x, w, frame, [centres], [5])
        assert same_bits(found, plain)


@QUICK
@given(iterations())
def test_bounds_are_never_above_a_distance(drawn):
    x, w, frame, passes = drawn
    bounds = None
    for centres in passes:
        _, bounds, _ = compiled.assign_again(x, w, frame, centres, 0, bounds)
        c = bounds.centres.astype(np.float64)
        y = reference.enter(x, frame).astype(np.float64)
        size = bounds.lower.shape[2]
        for i in range(len(x) if len(bounds.lower) else 0):
            distance = np.sqrt(((y[i] - c) ** 2).sum(axis=1))
            distance[bounds.label[i]] = np.inf
            lower = bounds.lower[i // size, :, i % size]
            assert (np.repeat(lower, pruned.GROUP)[: len(c)] <= distance).all()


@QUICK
@given(iterations())
def test_an_iteration_with_bounds_is_lloyds(drawn):
    x, w, frame, (centres, *_) = drawn
    plain = found = Centroids(centres)
    block = testing.block_of(x, w)
    memos = {}
    for _ in range(6):
        sums = Assign(plain, frame, 3, "one").map(block, compiled)
        (answer,), memos = Together((Assign(found, frame, 3, "one"),)).map_with(block, compiled, memos)
        answer = replace(answer, spared=0)
        testing.assert_same_answer(answer, sums, 0.0, 0.0)
        plain, found = plain.learn(sums.relocated()[0]), found.learn(answer.relocated()[0])


def test_numbers_out_of_reach_are_decided_as_without_bounds():
    for dtype, huge in ((np.float32, 3e38), (np.float64, 1e300)):
        x = np.array([[0.0, 0], [huge, 0], [-huge, huge], [1, 1], [1e-30, 0]], dtype).repeat(5, axis=0)
        frame, bounds = Frame(np.zeros(2), np.ones(2)), None
        for centres in (np.eye(3, 2), np.eye(3, 2) * 1e-25, np.eye(3, 2)):
            with np.errstate(over="ignore", invalid="ignore"):
                without, _, _ = compiled.assign_again(x, None, frame, centres, 2, None)
                found, bounds, _ = compiled.assign_again(x, None, frame, centres, 2, bounds)
            assert same_bits(found, without)


def test_centres_that_stay_spare_all_distances():
    x = np.random.default_rng(0).standard_normal((1000, 3))
    frame = Frame(np.zeros(3), np.ones(3))
    bounds, spared = None, []
    for _ in range(3):
        _, bounds, some = compiled.assign_again(x, None, frame, x[:20], 0, bounds)
        spared.append(some)
    groups = -(-20 // pruned.GROUP)
    assert spared == [0, 0, 1000 * groups * pruned.GROUP]


def test_while_centres_run_nothing_is_measured_by_bounds(monkeypatch):
    monkeypatch.setattr(pruned, "RUNNING", 0.01)
    x = np.random.default_rng(0).standard_normal((1000, 3))
    frame = Frame(np.zeros(3), np.ones(3))
    _, bounds, _ = compiled.assign_again(x, None, frame, x[:20], 0, None)

    def begun(x, frame, centres):
        return len(compiled.assign_again(x, None, frame, centres, 0, bounds)[1].lower) > 0

    assert begun(x, frame, x[:20] + 1e-3)
    assert not begun(x, frame, x[:20] + 0.1)
    assert not begun(x, Frame(np.ones(3), np.ones(3)), x[:20])
    assert not begun(x[:999], frame, x[:20])


def test_bounds_that_were_refused_are_tried_again_when_centres_have_slowed_down(monkeypatch):
    tried = []
    monkeypatch.setattr(pruned, "_worth", lambda *given: tried.append(given) is not None)
    x = np.random.default_rng(0).standard_normal((1000, 3))
    frame, centres, bounds = Frame(np.zeros(3), np.ones(3)), x[:20], None
    for step in (0, 1e-3, 1e-3, 0.9e-3, 0.6e-3, 0.5e-3, 0.4e-3):
        centres = centres + step
        _, bounds, _ = compiled.assign_again(x, None, frame, centres, 0, bounds)
    assert len(tried) == 3


@pytest.mark.parametrize(("apart", "step", "begun"), [(0.0, 0.1, False), (0.0, 0.001, True), (20.0, 0.1, True)])
def test_bounds_are_not_begun_where_all_centres_are_about_as_far(apart, step, begun, monkeypatch):
    monkeypatch.setattr(pruned, "ENOUGH", 0.6)
    rng = np.random.default_rng(0)
    d, centres = 128, apart * rng.standard_normal((200, 128))
    x = rng.standard_normal((4000, d)) + centres[rng.integers(0, 200, 4000)]
    frame, centres = Frame(np.zeros(d), np.ones(d)), x[:200]
    _, bounds, _ = compiled.assign_again(x, None, frame, centres, 0, None)
    _, bounds, _ = compiled.assign_again(x, None, frame, centres + step, 0, bounds)
    assert (len(bounds.lower) > 0) == begun


def test_bounds_are_made_when_centres_slow_down_and_counted_before(monkeypatch):
    monkeypatch.setattr(pruned, "RUNNING", 0.01)
    x = np.random.default_rng(0).standard_normal((1000, 3))
    frame, bounds, seen = Frame(np.zeros(3), np.ones(3)), None, []
    for step in (0, 0.1, 0.2, 0.2, 0.2):
        _, bounds, spared = compiled.assign_again(x, None, frame, x[:20] + step, 0, bounds)
        seen.append((len(bounds.lower) > 0, spared > 0, bounds.nbytes))
    made, spares, nbytes = zip(*seen, strict=True)
    assert made == (False, False, False, True, True)
    assert spares == (False, False, False, False, True)
    assert set(nbytes) == {bounds.centres.nbytes + bounds.label.nbytes + bounds.lower.nbytes}


N, D, K = 12_000, 4, 30
STARTS: dict = {"n_clusters": K, "init": "random", "n_init": 2, "random_state": 0, "tol": 0, "max_iter": 8}


@pytest.fixture(autouse=True)
def small_bundles(monkeypatch):
    monkeypatch.setattr("daskmix.rows.SMALL", 100_000)
    monkeypatch.setattr("daskmix.sources.zarr.RUN", 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "x.zarr"
    x = np.round(np.random.default_rng(0).standard_normal((N, D)) * 8) / 8  # ties happen
    array = zarr.create_array(path, shape=x.shape, chunks=(1000, D), dtype=x.dtype)
    array[:] = x
    return str(path)


def bits(x, run=None):
    """Everything that a fit found, as bytes; and the shares of distances that it did not compute."""
    model = KMeans(**STARTS, run=run).fit(x)
    found = [model.cluster_centers_, np.array(model.inertia_), model.cluster_weights_]
    return b"".join(a.tobytes() for a in found), [record["pruned"] for record in model.history_]


@pytest.fixture(scope="module")
def right(store):
    """Without anything that is remembered."""
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr("daskmix.algorithms.lloyd.MANY", 1)
        patch.setattr("daskmix.algorithms.lloyd.NUMBERS", 1)
        patch.setattr("daskmix.rows.SMALL", 100_000)
        patch.setattr("daskmix.sources.zarr.RUN", 1)
        found, shares = bits(store, Run(cache="off"))
        assert set(shares) == {0.0}
        return found


@pytest.mark.parametrize("threads", [1, 2])
def test_any_number_of_threads_gives_the_same_bits_and_spares_distances(store, right, threads):
    with dask.config.set(scheduler="threads", num_workers=threads):
        found, shares = bits(store)
    assert found == right
    assert shares[-1] > 0.1
    assert all(0 <= share < 1 for share in shares)


@pytest.mark.parametrize("run", [Run(cache="off"), Run(cache="disk"), Run(cache_limit=N * D * 4 + 50_000)])
def test_without_room_for_memos_the_bits_are_the_same(store, right, run):
    found, shares = bits(store, run)
    assert found == right
    assert (shares[-1] == 0) == (run.cache != "auto")
    assert (keep._shelf.memory, keep._shelf.disk) == (0, 0)


def test_memos_count_within_the_limit_and_are_let_go_with_the_fit(store):
    limit, seen = N * D * 4 + 300_000, []
    bits(store, Run(cache_limit=limit, callbacks=(lambda _: seen.append(keep._shelf.memory),)))
    assert N * D * 4 < max(seen) <= limit
    assert keep._shelf.memory == 0


def test_the_local_engine_gives_the_same_bits(store, right, monkeypatch):
    monkeypatch.setattr("daskmix.fitting.engine_for", lambda rows, keep=NOTHING, *others: Local(keep=keep))
    found, shares = bits(store)
    assert found == right
    assert shares[-1] > 0.1


def test_rows_in_memory_are_remembered_too(store, right):
    x = da.from_array(zarr.open_array(store)[:], chunks=(1000, D))
    found, shares = bits(x)
    assert found == right
    assert shares[-1] > 0.1


def on_workers():
    """What the tests set here, set on a worker."""
    from daskmix import rows
    from daskmix.kernels import pruned as there

    there.RUNNING, rows.SMALL = np.inf, 100_000


def test_memos_that_are_lost_with_their_worker_change_nothing(store, right):
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as processes, Client(processes) as client:
        client.run(on_workers)
        found, shares = bits(store)
        assert found == right
        assert shares[-1] > 0.1
        killed = []

        def kill():
            deadline = time.time() + 30
            while time.time() < deadline and not killed:
                busy = [w for w, info in client.processing().items() if any("daskmix-read" in str(k) for k in info)]
                if busy:
                    pid = client.run(os.getpid, workers=busy[:1])[busy[0]]
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        assassin = threading.Thread(target=kill)
        assassin.start()
        found, _ = bits(store)
        assassin.join()
        assert killed
        assert found == right
