"""The command line: what it writes, what it says, and how it exits."""

import os
import pty
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import click
import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner
from distributed import Client, LocalCluster

import daskmix
from daskmix import store
from daskmix.cli import main
from daskmix.cli.keys import STRUCTURES
from daskmix.estimators import BayesianGaussianMixture, BisectingKMeans, GaussianMixture, KMeans, mixture_start

COMMANDS = ["fit", "predict", "select", "run", "plan", "inspect", "demo"]
README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.fixture(scope="module")
def _field(tmp_path_factory):
    """Two variables over time, lat and lon, in three groups of rows, with land and the area of cells."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, (8, 20, 30))
    u, v = (rng.standard_normal((8, 20, 30)) + offset * group for offset in (6, -6))
    u[:, 0, :3] = np.nan
    dims, lat = ("time", "lat", "lon"), np.linspace(-80, 80, 20)
    area = ("lat", np.cos(np.radians(lat)))
    ds = xr.Dataset({"u": (dims, u, {"units": "m/s"}), "v": (dims, v), "area": area}, coords={"lat": lat})
    path = tmp_path_factory.mktemp("cli") / "field.zarr"
    ds.chunk(time=2).to_zarr(path, consolidated=False)
    return path


@pytest.fixture
def field(_field, tmp_path, monkeypatch):
    """The store's path; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    return str(_field)


UV = ["--variable", "u", "--variable", "v", "--missing", "drop", "--random-state", "0"]


def run(*arguments, exit_code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == exit_code, (result.output, result.exception)
    return result


def refused(*arguments, exit_code=2):
    """The one line that is said about an error."""
    said = run(*arguments, exit_code=exit_code).stderr
    *before, error = [line for line in said.splitlines() if not line.startswith(("pass ", "memory "))]
    assert error.startswith("Error: ")
    assert not before or before[0].startswith("Usage: ")
    assert "Traceback" not in said
    return error


def tree(path):
    return {p.relative_to(path): p.read_bytes() for p in sorted(Path(path).rglob("*")) if p.is_file()}


# --- fit, predict, inspect --------------------------------------------------------------------------------------------


def test_the_command_line_knows_the_structures_of_the_estimator():
    assert tuple(mixture_start.STRUCTURES) == STRUCTURES


@pytest.mark.parametrize(
    ("options", "model"),
    [
        (["--model", "kmeans", "-k", 3], KMeans(3, missing="drop", random_state=0)),
        (
            ["--model", "kmeans", "-k", 3, "--init", "random", "--n-init", 2, "--max-iter", 4, "--tol", 0],
            KMeans(3, init="random", n_init=2, max_iter=4, tol=0.0, missing="drop", random_state=0),
        ),
        (["--model", "gmm", "-k", 3], GaussianMixture(3, missing="drop", random_state=0)),
        (
            ["--model", "gmm", "-k", 2, "--covariance-type", "diag", "--reg-covar", 0.5, "--init", "k-means++"],
            GaussianMixture(
                2, covariance_type="diag", reg_covar=0.5, init_params="k-means++", missing="drop", random_state=0
            ),
        ),
        (
            ["--model", "kmeans", "-k", 3, "--metric", "cosine"],
            KMeans(3, metric="cosine", missing="drop", random_state=0),
        ),
        (
            ["--model", "gmm", "-k", 3, "--algorithm", "cem", "--equal-weights", "--prior", "default"],
            GaussianMixture(3, algorithm="cem", equal_weights=True, prior="default", missing="drop", random_state=0),
        ),
        (
            ["--model", "gmm", "-k", 2, "--covariance-type", "fixed", "--covariance", 0.5, "--temperature", "4,2,1"],
            GaussianMixture(
                2,
                covariance_type="fixed",
                covariance_init=0.5,
                temperature=[4.0, 2.0, 1.0],
                missing="drop",
                random_state=0,
            ),
        ),
        (
            ["--model", "gmm", "-k", 3, "--noise", "--on-collapse", "drop", "--min-weight", 0.01],
            GaussianMixture(3, noise=True, on_collapse="drop", min_weight=0.01, missing="drop", random_state=0),
        ),
        (
            ["--model", "gmm", "-k", 3, "--nu", "5", "--covariance-type", "diag"],
            GaussianMixture(3, nu=5.0, covariance_type="diag", missing="drop", random_state=0),
        ),
        (["--model", "bisecting", "-k", 4], BisectingKMeans(4, missing="drop", random_state=0)),
        (
            ["--model", "bisecting", "-k", 3, "--bisecting-strategy", "largest_cluster", "--n-init", 2, "--tol", 0],
            BisectingKMeans(
                3, bisecting_strategy="largest_cluster", n_init=2, tol=0.0, missing="drop", random_state=0
            ),
        ),
        (["--model", "bayesian", "-k", 4], BayesianGaussianMixture(4, missing="drop", random_state=0)),
        (
            [
                "--model", "bayesian", "-k", 5, "--missing", "em", "--covariance-type", "diag", "--init", "random",
                "--weight-concentration-prior", 0.01, "--weight-concentration-prior-type", "dirichlet_distribution",
            ],
            BayesianGaussianMixture(
                5, missing="em", covariance_type="diag", init_params="random", weight_concentration_prior=0.01,
                weight_concentration_prior_type="dirichlet_distribution", random_state=0,
            ),
        ),
    ],
)  # fmt: skip
def test_the_command_fits_what_python_fits(field, options, model):
    run("fit", field, *UV, *options, "--out", "model.zarr")
    model.fit(field, variables=["u", "v"])
    loaded = daskmix.load("model.zarr")
    assert loaded.get_params() == {**model.get_params(), "run": None, "random_state": None}
    xr.testing.assert_identical(loaded.to_xarray(), model.to_xarray())


@pytest.mark.parametrize("kept", [["--cache", "off"], ["--cache", "disk", "--cache-limit", "10kB", "--scratch", "."]])
def test_what_is_kept_between_passes_changes_nothing(field, kept):
    run("fit", field, *UV, "--model", "kmeans", "-k", 3, "--out", "plain.zarr")
    run("fit", field, *UV, "--model", "kmeans", "-k", 3, "--out", "kept.zarr", *kept)
    plain, other = (daskmix.load(name) for name in ("plain.zarr", "kept.zarr"))
    np.testing.assert_array_equal(plain.cluster_centers_, other.cluster_centers_)
    assert plain.inertia_ == other.inertia_
    assert plain.bytes_read_ < other.bytes_read_


def test_what_is_there_of_a_row_counts(field):
    options = ["--model", "gmm", "-k", 3, "--random-state", 0, "--variable", "u", "--variable", "v"]
    run("fit", field, *options, "--missing", "em", "--out", "model.zarr", "--labels-out", "labels.zarr")
    labels = xr.open_zarr("labels.zarr", consolidated=False)
    (label,) = labels.data_vars.values()
    assert not label.isnull().any()  # where u is land, v is not
    run(
        "predict", "model.zarr", field, "--missing", "drop", "--out", "fewer.zarr", "--variable", "u", "--variable", "v"
    )
    (fewer,) = xr.open_zarr("fewer.zarr", consolidated=False).data_vars.values()
    assert fewer.isnull().sum() == 24


def test_weights_are_a_variable_over_some_of_the_dims(field):
    run("fit", field, *UV, "--weights", "area", "--model", "kmeans", "-k", 3, "--out", "named.zarr")
    run("fit", field, *UV[4:], "--weights", "area", "--model", "kmeans", "-k", 3, "--out", "rest.zarr")
    ds = xr.open_zarr(field, consolidated=False)
    model = KMeans(3, missing="drop", random_state=0).fit(ds[["u", "v"]], sample_weight=ds.area)
    for out in ("named.zarr", "rest.zarr"):
        loaded = daskmix.load(out)
        order = [list(loaded.feature_names_in_).index(name) for name in ("u", "v")]
        assert np.allclose(np.sort(loaded.cluster_weights_), np.sort(model.cluster_weights_), rtol=1e-12)
        assert np.allclose(np.sort(loaded.cluster_centers_[:, order], axis=0), np.sort(model.cluster_centers_, axis=0))


def test_sampled_dims_may_be_named(field):
    run(
        "fit", field, "--variable", "v", "--sample-dims", "lat,lon", "--model", "kmeans", "-k", 2, "--out", "model.zarr"
    )
    assert daskmix.load("model.zarr").cluster_centers_.shape == (2, 8)


def test_labels_of_the_fit_are_those_of_predict_and_of_python(field):
    run("fit", field, *UV, "--model", "gmm", "-k", 3, "--out", "model.zarr", "--labels-out", "labels.zarr")
    run("predict", "model.zarr", field, "--out", "all.zarr", "--probabilities", "--uncertainty")
    ds = xr.open_zarr(field, consolidated=False)[["u", "v"]]
    model = daskmix.load("model.zarr")
    written = xr.open_zarr("all.zarr", consolidated=False)
    xr.testing.assert_equal(written.label, model.predict(ds))
    xr.testing.assert_equal(written.label, xr.open_zarr("labels.zarr", consolidated=False).label)
    xr.testing.assert_equal(written.uncertainty, model.uncertainty(ds))
    xr.testing.assert_equal(written.probability, model.predict_proba(ds))


def test_labels_keep_the_chunks_of_the_rows_and_rows_left_out_are_minus_two(field):
    run("fit", field, *UV, "--model", "kmeans", "-k", 3, "--out", "model.zarr", "--labels-out", "labels.zarr")
    labels = zarr.open_array("labels.zarr/label", mode="r")
    assert labels.chunks == zarr.open_array(f"{field}/u", mode="r").chunks
    assert labels.dtype == np.int32
    left_out = np.isnan(zarr.open_array(f"{field}/u", mode="r")[...])
    assert np.array_equal(labels[...] == -2, left_out)


def test_without_names_predict_reads_what_the_model_was_fitted_on(field):
    # The store also has the area of cells, which is no feature.
    run("fit", field, *UV, "--model", "kmeans", "-k", 3, "--out", "model.zarr")
    run("predict", "model.zarr", field, "--out", "own.zarr")
    run("predict", "model.zarr", field, "--variable", "v", "--variable", "u", "--out", "named.zarr")
    assert np.array_equal(zarr.open_array("own.zarr/label")[...], zarr.open_array("named.zarr/label")[...])


def test_a_bare_array_is_fitted_and_labelled(field):
    x = np.random.default_rng(0).standard_normal((100, 2)) + 9 * np.arange(2).repeat(50)[:, None]
    zarr.create_array("bare.zarr", data=x, chunks=(30, 2))
    run("fit", "bare.zarr", "--model", "gmm", "-k", 2, "--out", "model.zarr", "--random-state", 0)
    run("predict", "model.zarr", "bare.zarr", "--out", "labels.zarr", "--probabilities", "--uncertainty")
    written, model = xr.open_zarr("labels.zarr", consolidated=False), daskmix.load("model.zarr")
    assert np.array_equal(written.label, model.predict(x))
    assert np.allclose(written.probability, model.predict_proba(x))
    assert written.probability.dims == ("row", "component")


def test_the_model_is_described(field):
    run("fit", field, *UV, "--model", "gmm", "-k", 3, "--out", "model.zarr")
    said, model = run("inspect", "model.zarr").stdout, daskmix.load("model.zarr")
    for fact in (
        "GaussianMixture, k = 3, full covariances",
        "4,800 rows (those left out among them) of 2 features: u, v",
        f"{model.n_iter_}, converged",
        f"{model.bic():.8g}",
        f"daskmix {daskmix.__version__}",
        "missing=drop",
        "u [m/s]",
    ):
        assert fact in said
    rows = [line.split() for line in said.splitlines() if re.match(r"\d", line)]
    assert np.allclose([[float(cell) for cell in row[2:]] for row in rows], model.means_, rtol=1e-5)
    assert np.allclose([float(row[1]) for row in rows], model.weights_, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("bisecting", ("BisectingKMeans, k = 3", "inertia")),
        ("bayesian", ("BayesianGaussianMixture, k = 3", "evidence")),
    ],
)
def test_every_kind_of_model_is_described_and_labels_rows(field, kind, said):
    fitted = run("fit", field, *UV, "--model", kind, "-k", 3, "--out", "model.zarr", "--labels-out", "l.zarr").stdout
    described, model = run("inspect", "model.zarr").stdout, daskmix.load("model.zarr")
    for fact in said:
        assert fact in fitted
        assert fact in described
    labels, ds = xr.open_zarr("l.zarr", consolidated=False), xr.open_zarr(field, consolidated=False)[["u", "v"]]
    xr.testing.assert_equal(labels.label, model.predict(ds))


def test_a_wide_model_is_cut_to_the_page(field):
    KMeans(40, random_state=0).fit(np.random.default_rng(0).standard_normal((200, 12))).save("wide.zarr")
    said = run("inspect", "wide.zarr").stdout
    assert "..." in said
    assert said.splitlines()[-1] == "... and 8 more"
    assert max(map(len, said.splitlines())) < 200


def test_any_store_is_described(field):
    x = zarr.create_group("sharded.zarr", zarr_format=3)
    x.create_array("a", shape=(100, 4), chunks=(10, 4), shards=(50, 4), dtype="f4", dimension_names=("row", "feature"))
    old = zarr.create_group("old.zarr", zarr_format=2).create_array("b", shape=(7,), chunks=(3,), dtype="i2")
    old.attrs["_ARRAY_DIMENSIONS"] = ["row"]
    assert ["a", "row,feature", "100x4", "10x4", "50x4", "float32", "1,600"] in cells("sharded.zarr")
    assert ["b", "row", "7", "3", "-", "int16", "14"] in cells("old.zarr")
    assert ["u", "time,lat,lon", "8x20x30", "2x20x30", "-", "float64", "38,400"] in cells(field)
    assert ["/", "row", "7", "3", "-", "int16", "14"] in cells("old.zarr/b")


def cells(path):
    return [line.split() for line in run("inspect", path).stdout.splitlines()]


# --- errors and exit codes --------------------------------------------------------------------------------------------

FIT = ["--model", "kmeans", "-k", "2", "--out", "out.zarr"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit", "nowhere.zarr", *FIT], "there is no Zarr store at nowhere.zarr"),
        (["fit", "FIELD", *FIT, "--variable", "w"], "has no variable 'w'; it has"),
        (["fit", "FIELD", *FIT, "--variable", "u"], "holds NaN; pass --missing drop"),
        (["fit", "FIELD", *FIT, "--variable", "v", "--sample-dims", "time,depth"], "without 'depth'"),
        (["fit", "FIELD", *FIT, "--variable", "v", "--sample-dims", "time,,lat"], "write them as in time,lat,lon"),
        (["fit", "FIELD", *FIT, "--variable", "v", "--init", "kmeans++"], "did you mean 'k-means++'?"),
        (["fit", "FIELD", *FIT, "--variable", "v", "--weights", "areas"], "has no variable 'areas'"),
        (["fit", "FIELD", *FIT, "--covariance-type", "diag"], "--covariance-type is for --model gmm or bayesian, not"),
        (["fit", "FIELD", *FIT, "--noise"], "--noise is for --model gmm"),
        (["fit", "FIELD", *FIT[2:], "--model", "gmm", "--nu", "many"], "neither estimate nor a number"),
        (["fit", "FIELD", *FIT, "--prior", "default"], "--prior is for --model gmm"),
        (["fit", "FIELD", *FIT, "--covariance-type", "fixed", "--covariance", "1"], "--covariance-type is for"),
        (["fit", "FIELD", *FIT[2:], "--model", "gmm", "--metric", "cosine"], "--metric is for --model kmeans"),
        (["fit", "FIELD", *FIT[2:], "--model", "bayesian", "--covariance", "1"], "--covariance is for --model gmm"),
        (["fit", "FIELD", *FIT[2:], "--model", "bayesian", "--covariance-type", "VVE"], "covariance_type='VVE'"),
        (["fit", "FIELD", *FIT[2:], "--model", "bisecting", "--init", "random"], "--init is for --model kmeans or gmm"),
        (["fit", "FIELD", *FIT, "--weight-concentration-prior", "0"], "not in the range"),
        (["fit", "FIELD", *FIT, "--bisecting-strategy", "largest_cluster"], "is for --model bisecting, not kmeans"),
        (["select", "FIELD", "--model", "bayesian", "-k", "2-3", "--out", "out.zarr"], "'bayesian' is not one of"),
        (["fit", "FIELD", *FIT[2:], "--model", "gmm", "--temperature", "hot"], "must be numbers, as in 8,4,2,1"),
        (["fit", "FIELD", *FIT, "--reg-covar", "little"], "neither auto nor a number"),
        (["fit", "FIELD", *FIT, "--cache-limit", "much"], "no size; write it as in 500MB"),
        (["fit", "FIELD", *FIT, "--scratch", "nowhere"], "is no folder on this machine"),
        (["fit", "FIELD", *FIT, "-k", "0"], "0 is not in the range"),
        (["fit", "FIELD", "--model", "kmeans", "-k", "2"], "Missing option '--out'"),
        (["fit", "FIELD", *FIT, "--labels-out", "./out.zarr"], "named for two outputs"),
        (["fit", "FIELD", *FIT, "--scheduler", "nonsense"], "write it as tcp://host:8786"),
        (["predict", "FIELD", "FIELD", "--out", "out.zarr"], "holds no daskmix model"),
        (["inspect", "nowhere.zarr"], "there is no Zarr store at nowhere.zarr"),
        (["unknown"], "No such command 'unknown'"),
    ],
)
def test_bad_usage_and_bad_input_exit_with_two_and_say_what_to_do(field, arguments, said):
    assert said in refused(*(field if a == "FIELD" else a for a in arguments))
    assert not Path("out.zarr").exists()


def test_k_means_has_no_probabilities(field):
    run("fit", field, *UV, "--model", "kmeans", "-k", 3, "--out", "model.zarr")
    said = refused("predict", "model.zarr", field, "--out", "labels.zarr", "--probabilities")
    assert "fit with --model gmm" in said
    assert not Path("labels.zarr").exists()


def test_other_features_are_refused(field):
    run("fit", field, *UV, "--model", "kmeans", "-k", 3, "--out", "model.zarr")
    said = refused(
        "predict", "model.zarr", field, "--variable", "v", "--sample-dims", "time,lat,lon", "--out", "l.zarr"
    )
    assert "features" in said


def test_a_chunk_that_cannot_be_read_is_bad_input(field):
    zarr.create_array("bad.zarr", data=np.ones((10, 2)), chunks=(5, 2))
    Path("bad.zarr/c/1/0").write_bytes(b"not a chunk")
    assert "chunk 1" in refused("fit", "bad.zarr", *FIT)


def failing(monkeypatch, error):
    def fit(*arguments, **options):
        raise error

    monkeypatch.setattr(KMeans, "fit", fit)


def test_anything_else_exits_with_one_and_is_one_line(field, monkeypatch):
    failing(monkeypatch, RuntimeError("the first line\nthe second"))
    said = refused("fit", field, *FIT, exit_code=1)
    assert said == "Error: RuntimeError: the first line the second (--debug shows where)"


@pytest.mark.parametrize("before", [True, False])
def test_debug_shows_the_traceback(field, monkeypatch, before):
    failing(monkeypatch, RuntimeError("boom"))
    arguments = ["--debug", "fit", field, *FIT] if before else ["fit", field, *FIT, "--debug"]
    said = run(*arguments, exit_code=1).stderr
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("Error: RuntimeError: boom")


def test_an_environment_variable_shows_the_traceback_and_keeps_the_exit_code(field, monkeypatch):
    monkeypatch.setenv("DASKMIX_DEBUG", "1")
    assert "Traceback" in run("inspect", "nowhere.zarr", exit_code=2).stderr


def test_a_warning_is_one_line(field, monkeypatch):
    fit = KMeans.fit

    def warning(*arguments, **options):
        warnings.warn("a cluster\nwas moved", UserWarning, stacklevel=2)
        return fit(*arguments, **options)

    monkeypatch.setattr(KMeans, "fit", warning)
    assert run("fit", field, *UV, *FIT, "--quiet").stderr == "Warning: a cluster was moved\n"


# --- what is written, and what is not ---------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", ["out.zarr", "labels.zarr"])
def test_an_output_that_exists_is_refused_before_any_work(field, monkeypatch, taken):
    zarr.create_group(taken)
    failing(monkeypatch, AssertionError("work was done"))
    said = refused("fit", field, *FIT, "--labels-out", "labels.zarr")
    assert f"{taken} exists; pass" in said
    assert "--overwrite" in said


def test_a_selection_that_is_done_is_known_by_its_checkpoint(field):
    words = ["select", field, *UV, "--model", "gmm", "-k", "1-2", "--covariance-type", "diag", "--checkpoint", "c"]
    first = run(*words, "--out", "best.zarr").stdout
    written = Path("best.zarr/zarr.json").stat().st_mtime_ns
    again = run(*words, "--out", "best.zarr")
    assert again.stdout == first
    assert "pass " not in again.stderr
    assert Path("best.zarr/zarr.json").stat().st_mtime_ns == written
    assert run(*words, "--out", "other.zarr").stdout.replace("other", "best") == first
    run("fit", field, *UV, "--model", "kmeans", "-k", 3, "--out", "taken.zarr")
    assert "taken.zarr exists" in refused(*words, "--out", "taken.zarr")


def test_labels_that_exist_are_refused_before_any_work(field, monkeypatch):
    run("fit", field, *UV, "--model", "kmeans", "-k", 3, "--out", "model.zarr")
    zarr.create_group("labels.zarr")
    monkeypatch.setattr(store, "write_values", lambda *args, **how: pytest.fail("work was done"))
    assert "labels.zarr exists" in refused("predict", "model.zarr", field, "--out", "labels.zarr")


def test_a_folder_that_is_no_store_is_never_replaced(field):
    Path("thesis").mkdir()
    Path("thesis/chapter.tex").write_text("years of work")
    arguments = ["fit", field, *UV, "--model", "kmeans", "-k", 3, "--out", "thesis", "--overwrite"]
    assert "not a Zarr store" in refused(*arguments)
    assert Path("thesis/chapter.tex").exists()


@pytest.mark.parametrize("place", ["data.zarr", "./data.zarr/", ".", "file://{here}/data.zarr"])
def test_the_input_is_never_replaced(field, place):
    group = zarr.create_group(".").create_group("data.zarr")
    group.create_array("x", data=np.zeros((4, 2)))
    out = place.format(here=Path.cwd())
    arguments = ["fit", "data.zarr", "--variable", "x", "--model", "kmeans", "-k", 1, "--out", out, "--overwrite"]
    assert "would replace the input" in refused(*arguments)
    assert zarr.open_group("data.zarr", mode="r")["x"].shape == (4, 2)


def test_nothing_is_written_below_a_file(field):
    Path("file").write_text("")
    assert "file is a file" in refused("fit", field, *FIT[:-1], "file/out.zarr")


def test_overwrite_replaces_model_and_labels(field):
    arguments = ["fit", field, *UV, "--model", "kmeans", "--out", "model.zarr", "--labels-out", "labels.zarr"]
    run(*arguments, "-k", 2)
    run(*arguments, "-k", 3, "--overwrite")
    assert len(daskmix.load("model.zarr").cluster_centers_) == 3
    assert zarr.open_array("labels.zarr/label")[...].max() == 2


def test_a_fit_that_fails_leaves_the_old_model(field, monkeypatch):
    run("fit", field, *UV, *FIT)
    before = tree("out.zarr")
    refused("fit", field, "--variable", "u", *FIT, "--overwrite")
    assert tree("out.zarr") == before


def test_labels_whose_writing_was_interrupted_are_recognised(field, monkeypatch):
    run("fit", field, *UV, "--model", "kmeans", "-k", 3, "--out", "model.zarr")
    zarr.create_array("rows.zarr", data=np.ones((10, 2)), chunks=(5, 2))
    KMeans(1).fit("rows.zarr").save("one.zarr")
    Path("rows.zarr/c/1/0").write_bytes(b"not a chunk")
    run("predict", "one.zarr", "rows.zarr", "--out", "labels.zarr", exit_code=2)
    said = run("inspect", "labels.zarr", exit_code=2)
    assert re.search("no: writing was interrupted, [01] of 2 chunks written; write it again", said.stdout)
    assert "Error: labels.zarr is not complete: writing was interrupted" in said.stderr
    assert re.search("never finished, [01] of 2 chunks written", refused("fit", "labels.zarr", *FIT))
    run("predict", "model.zarr", field, "--out", "labels.zarr", "--overwrite")
    assert "complete        yes" in run("inspect", "labels.zarr").stdout


def test_a_model_whose_writing_was_interrupted_is_recognised(field, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(store, "_write_array", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        assert "no space left" in refused("fit", field, *UV, *FIT, exit_code=1)
    assert "interrupted" in refused("predict", "out.zarr", field, "--out", "labels.zarr")
    said = run("inspect", "out.zarr", exit_code=2)
    assert "a KMeans of daskmix" in said.stdout
    assert "no: writing was interrupted" in said.stdout
    assert "Error: out.zarr is not complete" in said.stderr


# --- help -------------------------------------------------------------------------------------------------------------


def help_of(command):
    return run(*command, "--help").stdout


@pytest.mark.parametrize("command", [[], *([c] for c in COMMANDS)], ids=" ".join)
def test_help_has_examples(command):
    assert "Examples:\n" in help_of(command)


def examples():
    """Every command line in the help texts and in the README."""
    texts = [help_of([]), *(help_of([c]) for c in COMMANDS), *re.findall(r"```\n(daskmix.*?)```", README, re.DOTALL)]
    for text in texts:
        for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
            if re.match(r"\s*daskmix ", line):
                yield shlex.split(re.split(r"(?<=\S)  +", line)[0])[1:]  # what comes after a gap explains


def test_every_example_is_good_usage():
    seen = set()
    for name, *arguments in examples():
        command = main.commands[name]
        with command.make_context(name, arguments, parent=click.Context(main)):  # raises UsageError
            seen.add(name)
    assert seen == set(COMMANDS)


def test_help_imports_nothing_heavy():
    code = "import sys, daskmix.cli; print({'dask', 'numpy', 'zarr', 'numba', 'xarray', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


# --- select and plan --------------------------------------------------------------------------------------------------


def test_the_command_selects_what_python_selects(field):
    options = ["--model", "gmm", "-k", "2-4", "--covariance-type", "diag", "--n-init", 2]
    said = run("select", field, *UV, *options, "--out", "best.zarr").stdout
    found = daskmix.select(field, (2, 3, 4), "diag", n_init=2, variables=["u", "v"], missing="drop", random_state=0)
    loaded = daskmix.load("best.zarr")
    xr.testing.assert_identical(loaded.to_xarray(), found.best_.to_xarray())
    assert loaded.n_components == 3
    assert re.search(r"^chosen by +bic$", said, re.MULTILINE)
    assert said.count("diag") >= 3


def test_a_selection_takes_the_options_of_a_fit(field):
    options = ["--model", "gmm", "-k", "1-3", "--covariance-type", "diag", "--reg-covar", "0.01", "--gap-tol", "1e-7"]
    run("select", field, *UV, *options, "--max-passes", 9, "--sample-size", 600, "--out", "best.zarr")
    loaded = daskmix.load("best.zarr")
    assert (loaded.reg_covar, loaded.gap_tol, loaded.sample_size, loaded.max_passes) == (0.01, 1e-7, 600, 9)
    assert loaded.n_passes_ <= 9


def test_clusters_are_selected_too(field):
    run("select", field, *UV, "--model", "kmeans", "-k", "2,3,5", "--criterion", "silhouette", "--out", "best.zarr")
    assert daskmix.load("best.zarr").n_clusters == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model", "kmeans", "-k", "2-3", "--covariance-type", "diag"], "--covariance-type"),
        (["--model", "kmeans", "-k", "2-3", "--reg-covar", "0.1"], "--reg-covar"),
        (["--model", "gmm", "-k", "two"], "2-12"),
        (["--model", "gmm", "-k", "0-2"], "2-12"),
        (["--model", "kmeans", "-k", "2-3", "--criterion", "bic"], "criterion"),
    ],
)
def test_what_cannot_be_selected_is_refused(field, options, told):
    assert told in refused("select", field, *UV, *options, "--out", "best.zarr")


def test_a_plan_tells_what_the_fit_will_read(field):
    said = run("plan", field, *UV[:4], "--model", "gmm", "-k", 3, "--threads", 2).stdout
    assert re.search(r"^rows +4,800, in 4 chunks$", said, re.MULTILINE)
    assert re.search(r"^memory +.*2 threads", said, re.MULTILINE)
    assert "at most 102" in said
    bayesian = run("plan", field, *UV[:4], "--model", "bayesian", "-k", 3, "--covariance-type", "diag").stdout
    assert "about 30, at most 101" in bayesian
    weighted = run("plan", field, "--weights", "area", "--model", "gmm", "-k", 3).stdout
    assert re.search(r"^rows +4,800, in 4 chunks$", weighted, re.MULTILINE)


def test_a_plan_warns_where_statistics_outweigh_rows(tmp_path):
    path = tmp_path / "wide.zarr"
    zarr.create_array(path, shape=(1000, 300), chunks=(100, 300), dtype="f4")
    assert "Warning: each task reads" in run("plan", path, "--model", "gmm", "-k", 8, "--accept-missing-chunks").stderr


# --- other processes --------------------------------------------------------------------------------------------------


def process(*arguments, **options):
    command = [sys.executable, "-m", "daskmix.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_elsewhere_than_on_a_terminal_the_memory_and_each_pass_are_plain_lines(field):
    ran = process("fit", field, *UV, "--model", "kmeans", "-k", 3, "--out", "model.zarr")
    assert ran.returncode == 0
    planned, *lines = ran.stderr.splitlines()
    assert re.fullmatch(r"memory +[\d.]+ MiB for a worker of \d+ threads, beside its cache", planned)
    assert len(lines) == daskmix.load("model.zarr").n_passes_
    assert all(re.match(rf"pass +{i + 1} ", line) for i, line in enumerate(lines))
    assert "\x1b" not in ran.stderr
    assert ran.stdout.splitlines()[-1].split() == ["model", "written", "model.zarr"]
    again = process("fit", field, *UV, "--model", "kmeans", "-k", 3, "--out", "model.zarr")
    assert (again.returncode, len(again.stderr.splitlines())) == (2, 1)


def test_on_a_terminal_each_pass_is_a_line_and_quiet_is_quiet(field):
    for quiet in ([], ["--quiet"]):
        master, slave = pty.openpty()
        out = f"model{len(quiet)}.zarr"
        command = [sys.executable, "-m", "daskmix.cli", "fit", field, *UV, *FIT[:-1], out, *quiet]
        environment = {**os.environ, "TERM": "xterm"}
        ran = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=slave, env=environment, timeout=120)
        os.write(slave, b"end\n")
        os.close(slave)
        said = b""
        while not said.endswith(b"end\r\n"):
            said += os.read(master, 4096)
        os.close(master)
        assert ran.returncode == 0
        assert said.count(b"rows in") == (0 if quiet else daskmix.load(out).n_passes_)
        assert (b"\x1b[" in said) is not bool(quiet)


def test_the_command_is_installed():
    command = Path(sys.executable).parent / "daskmix"
    out = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    assert out == f"daskmix, version {daskmix.__version__}\n"


def test_a_scheduler_that_does_not_answer_is_told(field):
    with dask.config.set({"distributed.comm.timeouts.connect": "500ms"}):
        said = refused("fit", field, *UV, *FIT, "--scheduler", "tcp://127.0.0.1:9", exit_code=75)
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in said
    assert "`dask scheduler`" in said


def test_a_cluster_gives_the_same_model_and_labels(field):
    arguments = ["fit", field, *UV, "--model", "gmm", "-k", 3]
    run(*arguments, "--out", "here.zarr", "--labels-out", "here-labels.zarr")
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster:
        where = ["--scheduler", cluster.scheduler_address]
        run(*arguments, "--out", "there.zarr", "--labels-out", "there-labels.zarr", *where)
        run("predict", "here.zarr", field, "--out", "predicted.zarr", *where)
    with pytest.raises(ValueError, match="No clients found"):
        Client.current()
    here, there = daskmix.load("here.zarr"), daskmix.load("there.zarr")
    xr.testing.assert_identical(here.to_xarray(), there.to_xarray())
    labels = [
        zarr.open_array(f"{name}/label")[...] for name in ("here-labels.zarr", "there-labels.zarr", "predicted.zarr")
    ]
    assert np.array_equal(labels[0], labels[1])
    assert np.array_equal(labels[0], labels[2])
