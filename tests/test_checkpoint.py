"""A fit that was cut off goes on from its checkpoint to the same bits, or says why it cannot."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore, MemoryStore

from daskmix import BayesianGaussianMixture, BisectingKMeans, GaussianMixture, KMeans, Run, load, select
from daskmix import checkpoint as checkpoints
from daskmix.errors import CheckpointError, CheckpointTakenError, CheckpointWarning, DamagedError, InputError

FITS = {
    "k-means||": lambda: KMeans(5, n_init=2, init="k-means||", accelerate="none", random_state=1),
    "k-means, accelerated": lambda: KMeans(6, sample_size=300, random_state=1),
    "k-means, cosine": lambda: KMeans(3, metric="cosine", random_state=1),
    "full, accelerated": lambda: GaussianMixture(3, sample_size=400, tol=0, max_iter=15, random_state=1),
    "VEE": lambda: GaussianMixture(3, covariance_type="VEE", random_state=1),
    "noise, restarts": lambda: GaussianMixture(4, noise=True, n_init=2, on_collapse="restart", random_state=1),
    "Student's t": lambda: GaussianMixture(3, nu="estimate", covariance_type="tied", random_state=1),
    "stochastic": lambda: GaussianMixture(3, algorithm="sem", max_iter=6, random_state=1),
    "prior": lambda: GaussianMixture(2, prior="default"),
    "held": lambda: GaussianMixture(2, fixed=("weights",), weights_init=[0.4, 0.6]),
    "bayesian": lambda: BayesianGaussianMixture(4, max_iter=8, random_state=1),
    "bisecting": lambda: BisectingKMeans(5, random_state=1),
}


class Killed(BaseException):
    """Nobody handles it."""


def dying_in(number):
    def hook(record):
        if record["pass"] == number:
            raise Killed

    return hook


def run_to(store, dies_in=None, **more):
    return Run(checkpoint=store, callbacks=() if dies_in is None else (dying_in(dies_in),), **more)


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(5)
    return np.concatenate([rng.normal(m, 1, (500, 3)) for m in (-3, 0, 3)])


def bits(model):
    """Every number that was fitted, and what each pass said; not how long it took."""
    apart = ("history_", "bytes_read_")  # what had been decoded has to be decoded again
    fitted = {name: value for name, value in vars(model).items() if name.endswith("_") and name not in apart}
    told = {
        n: v.tobytes() if isinstance(v, np.ndarray) and v.dtype.kind in "fiu" else repr(v) for n, v in fitted.items()
    }
    apart = ("seconds", "sample_seconds", "decoded")
    return told | {"history": repr([{n: v for n, v in r.items() if n not in apart} for r in model.history_])}


def manifests(folder):
    return sorted((folder / "commits").iterdir())


# --- the same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", FITS.values(), ids=FITS)
def test_a_fit_that_dies_in_every_pass_ends_in_the_same_bits(make, X):
    whole = make().set_params(random_state=1).fit(X)
    store, passes = MemoryStore(), whole.n_passes_
    for number in range(1, passes + 1):
        with pytest.raises(Killed):
            make().set_params(random_state=1, run=run_to(store, number)).fit(X)
    again = make().set_params(random_state=1, run=run_to(store)).fit(X)
    assert bits(again) == bits(whole)  # the passes among them: none was done twice


def test_a_fit_that_is_done_reads_nothing_more(X):
    store, seen = MemoryStore(), []
    first = KMeans(3, random_state=0, run=Run(checkpoint=store)).fit(X)
    again = KMeans(3, random_state=0, run=Run(checkpoint=store, callbacks=(seen.append,))).fit(X)
    assert not seen
    assert bits(again) == bits(first)


def test_a_selection_goes_on_too(X):
    def selected(run=None):
        return select(X, range(1, 4), ("full", "diag"), n_init=2, random_state=0, run=run)

    whole, store = selected(), MemoryStore()
    for number in range(1, len(whole.history_) + 1):
        with pytest.raises(Killed):
            selected(run_to(store, number))
    again = selected(run_to(store))
    assert bits(again.best_) == bits(whole.best_)
    xr.testing.assert_identical(again.table_, whole.table_)


def test_known_rows_weights_and_gaps_go_on_too(X):
    rng = np.random.default_rng(0)
    holes, weight = np.where(rng.random(X.shape) < 0.05, np.nan, X), rng.random(len(X))
    y = np.where(rng.random(len(X)) < 0.1, np.repeat([0, 1, 2], 500), -1)

    def fitted(run=None):
        model = GaussianMixture(3, semi_supervised=True, missing="em", max_iter=5, random_state=0, run=run)
        return model.fit(holes, y, sample_weight=weight)

    store = MemoryStore()
    with pytest.raises(Killed):
        fitted(run_to(store, 4))
    assert bits(fitted(run_to(store))) == bits(fitted())


def test_a_seed_that_was_drawn_is_kept(X):
    store = MemoryStore()
    with pytest.raises(Killed):
        KMeans(3, run=run_to(store, 2)).fit(X)
    again = KMeans(3, run=run_to(store)).fit(X)
    assert bits(KMeans(3, random_state=None, run=run_to(store)).fit(X)) == bits(again)


@pytest.mark.parametrize("kind", ["path", "str", "file url", "memory url", "LocalStore"])
def test_places_of_every_kind(kind, X, tmp_path):
    place = {
        "path": tmp_path / "c", "str": str(tmp_path / "c"), "file url": (tmp_path / "c").as_uri(),
        "memory url": f"memory://{tmp_path.name}/c", "LocalStore": LocalStore(tmp_path / "c"),
    }[kind]  # fmt: skip
    with pytest.raises(Killed):
        KMeans(3, random_state=0, run=run_to(place, 3)).fit(X)
    again = KMeans(3, random_state=0, run=run_to(place)).fit(X)
    assert bits(again) == bits(KMeans(3, random_state=0).fit(X))
    if kind != "memory url":
        assert len(manifests(tmp_path / "c")) == checkpoints.KEPT
        assert not [*tmp_path.rglob("*.part")]


def test_a_process_that_is_killed_leaves_nothing_behind(X, tmp_path):
    model = KMeans(3, random_state=0, run=run_to(tmp_path / "c", 4))
    with pytest.raises(Killed):
        model.fit(X)
    (tmp_path / "c" / "states" / ("0" * 32)).write_bytes(b"written before its commit")
    (tmp_path / "c" / "commits" / f"{'1' * 32}.part").write_bytes(b"half")
    KMeans(3, random_state=0, run=run_to(tmp_path / "c")).fit(X)
    named = {s["key"] for m in manifests(tmp_path / "c") for s in json.loads(m.read_bytes())["stages"]}
    assert {f"states/{file.name}" for file in (tmp_path / "c" / "states").iterdir()} == named
    assert len(manifests(tmp_path / "c")) == checkpoints.KEPT


def test_commits_may_be_rare_but_the_end_of_a_stage_is_kept(X):
    store = MemoryStore()
    with pytest.raises(Killed):
        KMeans(4, random_state=0, run=run_to(store, 5, checkpoint_every=3600)).fit(X)
    seen = []
    again = KMeans(4, random_state=0, run=Run(checkpoint=store, callbacks=(seen.append,))).fit(X)
    assert seen[0]["pass"] == 2  # the survey was
    assert bits(again) == bits(KMeans(4, random_state=0).fit(X))


def test_a_command_that_is_killed_goes_on_when_it_is_given_again(tmp_path):
    x = np.random.default_rng(0).normal(size=(40_000, 8))
    zarr.create_array(tmp_path / "x.zarr", data=x, chunks=(1000, 8))

    def command(out, *more):
        words = ["fit", "x.zarr", "--model", "gmm", "-k", "6", "--tol", "0", "--max-iter", "40", "--accelerate", "none"]
        rest = ["--random-state", "0", "--out", out, *more]
        return subprocess.Popen(
            [sys.executable, "-m", "daskmix.cli", *words, *rest], cwd=tmp_path, stderr=subprocess.PIPE
        )

    process = command("a.zarr", "--checkpoint", "c")
    while len(list(tmp_path.glob("c/commits/0000001?"))) < 1:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "a.zarr").exists()
    for again in (command("a.zarr", "--checkpoint", "c"), command("b.zarr")):
        assert again.wait() == 0, again.stderr.read()
    assert bits(load(tmp_path / "a.zarr")) == bits(load(tmp_path / "b.zarr"))


# --- another fit ------------------------------------------------------------------------------------------------------


def begun(X, store, **options):
    with pytest.raises(Killed):
        KMeans(3, random_state=0, run=run_to(store, 3), **options).fit(X)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"n_clusters": 4}, "n_clusters is 4, was 3"),
        ({"tol": 0.5}, "tol is 0.5, was 0.0001"),
        ({"random_state": 1}, "random_state is 1, was 0"),
        ({"init": np.zeros((3, 3))}, "init is "),
        ({"missing": "drop"}, "missing is drop, was raise"),
    ],
)
def test_another_parameter_is_refused(changed, said, X):
    store = MemoryStore()
    begun(X, store)
    with pytest.raises(CheckpointError, match=said):
        KMeans(**{"n_clusters": 3, "random_state": 0, "run": run_to(store), **changed}).fit(X)


def test_how_a_fit_runs_is_no_matter(X):
    store = MemoryStore()
    begun(X, store)
    again = KMeans(3, random_state=0, verbose=0, run=run_to(store, cache="off", checkpoint_every=1.0)).fit(X)
    assert bits(again) == bits(KMeans(3, random_state=0).fit(X))


def test_other_rows_weights_and_labels_are_refused(X):
    store = MemoryStore()
    begun(X, store)
    with pytest.raises(CheckpointError, match=r"input's token is .*, was "):
        KMeans(3, random_state=0, run=run_to(store)).fit(X + 1e-9)
    with pytest.raises(CheckpointError, match="input's shape"):
        KMeans(3, random_state=0, run=run_to(store)).fit(X[:-1])
    with pytest.raises(CheckpointError, match=r"sample_weight's .* was not given"):
        KMeans(3, random_state=0, run=run_to(store)).fit(X, sample_weight=np.ones(len(X)))
    with pytest.raises(CheckpointError, match="model is GaussianMixture, was KMeans"):
        GaussianMixture(3, random_state=0, run=run_to(store)).fit(X)
    with pytest.raises(CheckpointError, match="tried is"):
        select(X, n_clusters=(3, 4), random_state=0, run=run_to(store))


@pytest.mark.parametrize("as_group", [False, True], ids=["array", "group"])
def test_a_store_of_which_one_chunk_changed_is_refused(as_group, X, tmp_path):
    path = tmp_path / "x.zarr"
    if as_group:
        xr.Dataset({"a": ("row", X[:, 0]), "b": ("row", X[:, 1])}).chunk(row=300).to_zarr(path, consolidated=False)
    else:
        zarr.create_array(path, data=X, chunks=(300, 3))

    def fit(store, dies_in=None, source=path):
        names = ["a", "b"] if as_group else None
        return KMeans(3, random_state=0, run=run_to(store, dies_in)).fit(source, variables=names)

    store = MemoryStore()
    with pytest.raises(Killed):
        fit(store, 3)
    shutil.copytree(path, tmp_path / "copy.zarr")  # with the same times
    assert bits(fit(store, source=tmp_path / "copy.zarr")) == bits(fit(None))
    name = "a" if as_group else ""
    array = zarr.open_array(path, path=name, mode="r+")
    array[:1] = array[:1] + 1
    with pytest.raises(CheckpointError, match=f"objects of {name or 'the array'} is 6 of .*, was 6 of"):
        fit(store)
    if as_group:
        with pytest.raises(CheckpointError, match=r"variables is \['b', 'a'\], was \['a', 'b'\]"):
            KMeans(3, random_state=0, run=run_to(store)).fit(path, variables=["b", "a"])


def test_lazy_rows_are_told_by_their_token(X, tmp_path):
    np.save(tmp_path / "x.npy", X)
    script = """
import sys, numpy as np, dask.array as da
from daskmix import KMeans, Run
x = da.from_array(np.load("x.npy"), chunks=(200, 3)) * 2.0
def die(record):
    if record["pass"] == 3 and sys.argv[1] == "die": raise SystemExit(7)
model = KMeans(3, random_state=0, run=Run(checkpoint="c", callbacks=(die,))).fit(x)
print(model.cluster_centers_.tobytes().hex())
"""

    def child(*words):
        return subprocess.run([sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True)

    assert child("die").returncode == 7
    there = child("go on")
    assert there.returncode == 0, there.stderr
    whole = KMeans(3, random_state=0).fit(da.from_array(X, chunks=(200, 3)) * 2.0)
    assert there.stdout.strip() == whole.cluster_centers_.tobytes().hex()


def test_rows_that_no_other_process_can_tell_are_warned_of(X):
    lock = object()
    lazy = da.from_array(X, chunks=(500, 3)).map_blocks(lambda block, lock: block, lock, dtype=X.dtype, name="mine")
    frame = xr.DataArray(lazy, dims=("row", "feature"), attrs={"made by": lock})
    with pytest.warns(CheckpointWarning, match="only this one can go on"):
        KMeans(3, random_state=0, run=Run(checkpoint=MemoryStore())).fit(frame)


def test_another_version_is_refused(X, tmp_path):
    begun(X, tmp_path / "c")
    for manifest in manifests(tmp_path / "c"):
        commit = checkpoints.Commit.decoded(manifest.read_bytes())
        commit.identity["version of"]["numpy"] = "1.0"
        manifest.write_bytes(commit.encoded())
    with pytest.raises(CheckpointError, match=r"version of numpy is .*, was 1\.0"):
        KMeans(3, random_state=0, run=run_to(tmp_path / "c")).fit(X)


# --- torn, foreign, taken ---------------------------------------------------------------------------------------------


def damaged(file, how):
    data = bytearray(file.read_bytes())
    if how == "empty":
        data = b""
    elif how == "truncated":
        data = data[: len(data) // 2]
    elif how == "gone":
        file.unlink()
        return
    else:
        data[int(how * len(data))] ^= 0x10
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["empty", "truncated", "gone", 0.0, 0.3, 0.6, 0.999])
def test_a_damaged_state_is_named_and_the_commit_before_is_used(how, X, tmp_path):
    begun(X, tmp_path / "c")
    last = json.loads(manifests(tmp_path / "c")[-1].read_bytes())
    damaged(tmp_path / "c" / last["stages"][-1]["key"], how)
    with pytest.warns(CheckpointWarning, match=f"commits/0+{last['number']} .* is damaged, and not used: states/"):
        again = KMeans(3, random_state=0, run=run_to(tmp_path / "c")).fit(X)
    assert bits(again) == bits(KMeans(3, random_state=0).fit(X))


def test_every_flipped_bit_of_a_commit_is_seen(X, tmp_path):
    begun(X, tmp_path / "c")
    data = manifests(tmp_path / "c")[-1].read_bytes()
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            with pytest.raises(CheckpointError):
                checkpoints.Commit.decoded(bytes(changed))


@pytest.mark.parametrize("how", ["empty", "truncated", 0.5])
def test_where_all_commits_are_damaged_nothing_is_used(how, X, tmp_path):
    begun(X, tmp_path / "c")
    for manifest in manifests(tmp_path / "c"):
        damaged(manifest, how)
    with pytest.warns(CheckpointWarning), pytest.raises(DamagedError, match=r"no commit of the checkpoint .* is whole"):
        KMeans(3, random_state=0, run=run_to(tmp_path / "c")).fit(X)


def test_what_is_no_checkpoint_is_left_alone(X, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("all of it")
    with pytest.raises(CheckpointError, match="something else than a checkpoint"):
        KMeans(3, run=run_to(tmp_path / "c")).fit(X)
    assert [file.name for file in (tmp_path / "c").rglob("*")] == ["thesis.tex"]
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match=r"nothing can be kept at .*file: .*choose another place"):
        KMeans(3, run=run_to(tmp_path / "file")).fit(X)


def test_two_processes_do_not_share_a_checkpoint(X, tmp_path):
    def other(record):
        if record["pass"] == 3:
            KMeans(3, random_state=0, run=run_to(tmp_path / "c")).fit(X)

    with pytest.raises(CheckpointTakenError, match="another process"):
        KMeans(3, random_state=0, run=Run(checkpoint=tmp_path / "c", callbacks=(other,))).fit(X)


def test_a_checkpoint_that_cannot_be_written_costs_no_fit(X, tmp_path):
    def spoil(record):
        if record["pass"] == 3:
            shutil.rmtree(tmp_path / "c" / "states")
            (tmp_path / "c" / "states").write_text("in the way")
        if record["pass"] == 5:
            os.unlink(tmp_path / "c" / "states")

    with pytest.warns(CheckpointWarning, match="could not be written: .*the fit goes on") as told:
        model = KMeans(5, random_state=0, run=Run(checkpoint=tmp_path / "c", callbacks=(spoil,))).fit(X)
    assert len([w for w in told if issubclass(w.category, CheckpointWarning)]) == 1
    assert bits(model) == bits(KMeans(5, random_state=0).fit(X))


def test_what_was_not_committed_in_time_is_committed_later(X, tmp_path):
    states = tmp_path / "c" / "states"

    def spoil(record):
        if record["pass"] == 1:  # before the end of the next stage
            states.rename(tmp_path / "aside")
            states.write_text("in the way")
        if record["pass"] == 3:
            states.unlink()
            (tmp_path / "aside").rename(states)
        if record["pass"] == 5:
            raise Killed

    def fitted(run):
        return GaussianMixture(3, prior="default", max_iter=5, tol=0, random_state=0, run=run).fit(X)

    with pytest.warns(CheckpointWarning, match="could not be written"), pytest.raises(Killed):
        fitted(Run(checkpoint=tmp_path / "c", callbacks=(spoil,)))
    assert [s["what"] for s in json.loads(manifests(tmp_path / "c")[-1].read_bytes())["stages"]] == [
        "survey", "covariance", "em",
    ]  # fmt: skip
    assert bits(fitted(run_to(tmp_path / "c"))) == bits(fitted(None))


@pytest.mark.parametrize("options", [{"checkpoint": 3}, {"checkpoint_every": -1}, {"checkpoint_every": "often"}])
def test_options_that_cannot_be_meant(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Run(**options)
