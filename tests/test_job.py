"""Job files: what they may say, what is refused, and what is done once."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

import dask
import jsonschema
import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import daskmix
from daskmix import BayesianGaussianMixture, BisectingKMeans, GaussianMixture, KMeans, Run
from daskmix.cli import job, main
from daskmix.cli.keys import CHECKPOINT, COVARIANCE_TYPES, HOW_LONG, HOW_TO_RUN, INPUT, MODEL, RUN, SEARCH, TABLES
from daskmix.errors import InputError

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples" / "jobs").glob("*.toml"))
ESTIMATORS = {
    "kmeans": KMeans, "bisecting": BisectingKMeans, "gmm": GaussianMixture, "bayesian": BayesianGaussianMixture,
}  # fmt: skip
SCHEMA = json.loads(job.schema())


@pytest.fixture(scope="module")
def _data(tmp_path_factory):
    """Temperature and salt over time, lat and lon, with land and the area of cells."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, (8, 20, 30))
    temp, salt = (rng.standard_normal(group.shape) + offset * group for offset in (6, -6))
    temp[:, 0, :3] = np.nan
    dims, lat = ("time", "lat", "lon"), np.linspace(-80, 80, 20)
    area = ("lat", np.cos(np.radians(lat)))
    folder = tmp_path_factory.mktemp("data")
    ds = xr.Dataset({"temp": (dims, temp), "salt": (dims, salt), "area": area}, coords={"lat": lat})
    ds.chunk(time=2).to_zarr(folder / "ocean.zarr", consolidated=False)
    return folder


@pytest.fixture
def data(_data, tmp_path, monkeypatch):
    """Where the ocean is, as the environment says; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA", str(_data))
    monkeypatch.setenv("RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("SCHEDULER", "tcp://127.0.0.1:9")
    return _data


JOB = {
    "input": {"store": "${DATA}/ocean.zarr", "variables": ["temp", "salt"], "missing": "drop"},
    "model": {"kind": "gmm", "k": 3, "random_state": 0},
    "output": {"model": "model.zarr", "labels": "labels.zarr"},
    "checkpoint": {"store": "checkpoint"},
}


def written(said, path="job.toml"):
    """A document as TOML: of plain values, that of JSON is the same."""
    lines = []
    for table, keys in said.items():
        if not isinstance(keys, dict):
            lines.insert(0, f"{json.dumps(table)} = {toml(keys)}")
            continue
        lines += [f"[{json.dumps(table, ensure_ascii=False)}]"]
        lines += [f"{json.dumps(name, ensure_ascii=False)} = {toml(value)}" for name, value in keys.items()]
    Path(path).write_text("\n".join(lines), encoding="utf-8")
    return path


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml(each)}" for name, each in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False).replace("NaN", "nan").replace("Infinity", "inf").replace("\x7f", "")


def changed(table, **keys):
    """The job with other keys in a table; a value of None takes a key away."""
    said = {**JOB, table: {**JOB.get(table, {}), **keys}}
    said[table] = {name: value for name, value in said[table].items() if value is not None}
    return said


def run(*arguments, exit_code=0):
    result = CliRunner().invoke(main, ["run", *map(str, arguments)])
    assert result.exit_code == exit_code, (result.output, result.exception)
    return result


def refused(said, *options, exit_code=2):
    """The one line that is said about an error."""
    *before, error = run(written(said), *options, exit_code=exit_code).stderr.splitlines()
    assert error.startswith("Error: ")
    assert not [line for line in before if not line.startswith(("Usage", "Try", "pass", "memory")) and line]
    return error


def tree(path):
    return {p.relative_to(path): p.read_bytes() for p in sorted(Path(path).rglob("*")) if p.is_file()}


def numbers(path):
    """Of a store, without what JSON says, as how long passes took."""
    return {path: data for path, data in tree(path).items() if path.name != "zarr.json"}


# --- one declaration --------------------------------------------------------------------------------------------------


def test_the_published_schema_is_that_of_the_declaration():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert (ROOT / "docs" / "job.schema.json").read_text() == run("--schema").stdout


def test_the_page_has_every_key_as_it_is_declared():
    assert (ROOT / "docs" / "job-file.md").read_text().endswith("\n\n" + run("--keys").stdout)
    for keys in TABLES.values():
        assert len({key.name for key in keys}) == len(keys)
        assert all(key.help.endswith(".") for key in keys)


def defaults_of(function):
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_every_key_of_a_model_is_a_parameter_with_the_same_default(kind):
    defaults = defaults_of(ESTIMATORS[kind].__init__)
    for key in (*MODEL, next(key for key in INPUT if key.name == "missing")):
        if kind not in key.models or key.name in ("kind", "k"):
            continue
        parameter = key.parameter
        if parameter == "init" and kind != "kmeans":
            parameter = "init_params"
        assert parameter in defaults, key.name
        default = key.default[kind] if isinstance(key.default, Mapping) else key.default
        assert defaults[parameter] == default, key.name


def test_every_key_of_a_search_has_the_default_of_select():
    defaults = defaults_of(daskmix.select)
    n_init = next(key for key in SEARCH if key.name == "n_init")
    assert n_init.default == defaults["n_init"]
    criterion = next(key for key in SEARCH if key.name == "criterion")
    for kind, number in (("gmm", "n_components"), ("kmeans", "n_clusters")):
        asked = daskmix.selection.asked_for(**{number: [2]}, options={})
        assert asked.criterion == criterion.default[kind]
        assert tuple(asked.names) == (COVARIANCE_TYPES.default if kind == "gmm" else ())
        model = defaults_of(ESTIMATORS[kind].__init__)
        for key in SEARCH:
            if kind in key.models and key.name in {same.name for same in HOW_LONG}:
                assert model[key.parameter] == (key.default[kind] if isinstance(key.default, Mapping) else key.default)


def test_every_key_of_how_it_runs_has_the_default_of_run_but_that_nobody_watches_a_batch_job():
    defaults = defaults_of(Run)
    for key in RUN:
        if key.name == "on_stall":
            assert (key.default, defaults["on_stall"]) == ("raise", "wait")
        else:
            assert defaults[key.parameter] == key.default, key.name
    assert {key.parameter for key in RUN} == set(defaults) - {"progress", "callbacks"}
    assert {*HOW_TO_RUN, *CHECKPOINT} < set(RUN)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (changed("model", covariance_typ="diag"), "model.covariance_typ is no key of a job; did you mean model.cova"),
        (changed("model", missing="drop"), "model.missing is no key of a job; did you mean input.missing?"),
        (changed("input", path="x"), "input.path is no key of a job"),
        ({**JOB, "resource": {}}, "resource is no table of a job; did you mean [resources]?"),
        ({**JOB, "input": 3}, "input must be a table"),
        (changed("model", k="five"), "model.k = 'five' is text; it must be a whole number, at least 1"),
        (changed("model", k=True), "model.k = True is true or false"),
        (changed("model", k=3.0), "model.k = 3.0 is a number"),
        (changed("model", k=0), "model.k = 0"),
        (changed("model", kind="gm"), "model.kind='gm' is not one of 'kmeans', 'bisecting', 'gmm', 'bayesian'; did"),
        (changed("model", tol=float("nan")), "model.tol = nan"),
        (changed("model", metric="cosine"), 'model.metric is for model.kind = "kmeans", not "gmm"'),
        (changed("model", k=None), "model.k is missing"),
        (changed("input", variables="temp"), "input.variables = 'temp' is text; it must be an array"),
        (changed("input", variables=["temp", 2]), "input.variables[1] = 2"),
        (changed("input", variables=["${HOME}"]), "input.variables = '${HOME}' has a ${"),
        (changed("model", init="${HOME}"), "model.init = '${HOME}' has a ${"),
        (changed("input", store="${NOWHERE}/x"), "input.store names ${NOWHERE}, which is not set in the environment"),
        (changed("input", store="${not a name}/x"), "has a ${ that names no variable"),
        (changed("output", probabilities=True, labels=None), "output.probabilities is written beside output.labels"),
        (changed("resources", cache_limit="much"), "resources.cache_limit = 'much'"),
        (changed("resources", scheduler=3), "resources.scheduler = 3"),
        ({**JOB, "search": {"kind": "gmm", "k": "2-3"}}, "[model] and [search] are both there"),
        ({name: JOB[name] for name in ("input", "output")}, "[model] and [search] are both missing"),
        ({name: JOB[name] for name in ("input", "model")}, "[output] is missing"),
        (changed("input", variables=["depth"]), "has no variable 'depth'"),
        (changed("input", missing=None), 'holds NaN; pass input.missing = "drop"'),
        (changed("output", labels="./model.zarr"), "named for two outputs"),
        (changed("output", model="${DATA}/ocean.zarr"), "would replace the input ${DATA}/ocean.zarr"),
        (changed("model", init="k-means||"), "init_params='k-means||' is not one of"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(data, said, told):
    assert told in refused(said)
    assert not {"model.zarr", "labels.zarr"} & set(os.listdir())


def test_a_model_without_probabilities_is_refused_before_any_work(data):
    said = changed("output", uncertainty=True) | {"model": {"kind": "kmeans", "k": 3}}
    assert 'output.uncertainty is for model.kind = "gmm" or "bayesian", not "kmeans"' in refused(said)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[input\n", "is no TOML"),
        (b"\xff\xfe", "is no TOML"),
        (b"[input]\nstore = 'a'\nstore = 'b'", "is no TOML"),
        (b"a = " + b"[" * 100_000, "is no TOML"),
        (b"a = " + b"9" * 10_000, "is no TOML"),
        (b"#" * (1 << 21), "more than 1,048,576 bytes"),
    ],
)
def test_what_is_no_job_file_is_refused(data, content, told):
    Path("job.toml").write_bytes(content)
    said = run("job.toml", exit_code=2).stderr
    assert re.match(rf"Error: job.toml: .*{told}", said)


def test_a_job_file_that_is_not_there_is_told(data):
    assert "nowhere.toml: this job file cannot be read" in run("nowhere.toml", exit_code=2).stderr
    assert "this job file cannot be read" in run(".", exit_code=2).stderr
    assert "Missing argument 'JOB'" in run(exit_code=2).stderr


# --- whatever a document says -----------------------------------------------------------------------------------------

WORDS = ["temp", "2-4", "2GiB", "${DATA}/x.zarr"]


def values(fragment):
    """Values that a part of the schema allows."""
    if "enum" in fragment:
        return st.sampled_from(fragment["enum"])
    if "const" in fragment:
        return st.just(fragment["const"])
    if "anyOf" in fragment:
        return st.one_of(*map(values, fragment["anyOf"]))
    kind = fragment["type"]
    if kind == "array":
        return st.lists(values(fragment["items"]), min_size=1, max_size=4)
    if kind == "boolean":
        return st.booleans()
    if kind == "integer":
        return st.integers(fragment["minimum"], fragment.get("maximum", 10**6))
    if kind == "number":
        return st.floats(0, min(fragment.get("exclusiveMaximum", 1e300), 1e300), exclude_max=True, exclude_min=True)
    return st.sampled_from(WORDS).filter(lambda word: fits(word, fragment))


def fits(value, fragment):
    return jsonschema.Draft202012Validator(fragment).is_valid(value)


@st.composite
def documents(draw):
    """Jobs that the schema allows."""
    made = draw(st.sampled_from(job.ONE_OF))
    kind = draw(st.sampled_from(SCHEMA["properties"][made]["properties"]["kind"]["enum"]))
    said = {}
    for table in ("input", made, "output", *draw(st.sets(st.sampled_from(["checkpoint", "resources"])))):
        keys = {}
        for key in TABLES[table]:
            fragment = SCHEMA["properties"][table]["properties"][key.name]
            if kind in key.models and (key.required or draw(st.booleans())):
                keys[key.name] = kind if key.name == "kind" else draw(values(fragment))
        said[table] = keys
    if {"probabilities", "uncertainty"} & said["output"].keys():
        said["output"]["labels"] = "labels.zarr"
    return said


ANYTHING = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=8),
    st.integers(-(2**60), 2**60),
    st.floats(),
    st.booleans(),
    st.lists(st.integers(-3, 3) | st.text("ab$", max_size=3) | st.booleans(), max_size=3),
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(), max_size=2),
    st.sampled_from(["${DATA}", "${", "${}", "a${HOME}b"]),
)


@st.composite
def spoiled(draw):
    """A job with one key or value that cannot be, and its name."""
    said = draw(documents())
    table = draw(st.sampled_from(sorted(said)))
    known = {key.name: key for key in TABLES[table]}
    how = draw(st.sampled_from(["name", "value", "required"]))
    if how == "name":
        name = draw(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12))
        assume(name not in known)
        said[table][name] = draw(ANYTHING)
        return said, f"{table}.{name}"
    if how == "required":
        needed = [name for name in known if known[name].required]
        assume(needed)
        name = draw(st.sampled_from(needed))
        del said[table][name]
        return said, f"{table}.{name}"
    assume(said[table])
    name = draw(st.sampled_from(sorted(said[table])))
    value = draw(ANYTHING)
    assume(not fits(value, SCHEMA["properties"][table]["properties"][name]))
    said[table][name] = value
    return said, f"{table}.{name}"


quietly = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@quietly
@given(documents())
def test_what_the_schema_allows_is_read(data, said):
    jsonschema.validate(said, SCHEMA)
    read = job.read(written(said), os.environ)
    assert read.source().store == said["input"]["store"].replace("${DATA}", str(data))
    assert read.outputs(False).overwrite == said["output"].get("overwrite", False)


@quietly
@given(spoiled())
def test_one_spoiled_key_or_value_is_refused_by_its_name(data, case):
    said, name = case
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(said, SCHEMA)
    error = refused(said)
    assert name in error or name in error.encode().decode("unicode_escape", "ignore")


@quietly
@given(st.binary(max_size=200) | st.text("[]{}=\"'.#\n ainputmodel${}0123456789", max_size=200).map(str.encode))
def test_whatever_a_file_holds_it_is_a_job_or_refused(data, content):
    Path("job.toml").write_bytes(content)
    with pytest.raises(InputError, match=r"^job.toml: "):
        job.read("job.toml", os.environ)


# --- the environment --------------------------------------------------------------------------------------------------


SECRET_PLACES = (
    "${TOKEN}/x.zarr", "${HOST}/${TOKEN}/x", "https://u:${TOKEN}@127.0.0.1:9/x", "${HOST}/x?sig=${TOKEN}", "${URL}",
)  # fmt: skip


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
@pytest.mark.parametrize("store", SECRET_PLACES)
def test_what_the_environment_holds_is_never_shown(data, monkeypatch, store, options):
    monkeypatch.setattr("daskmix.again.OPEN_PATIENCE", 0.5)
    monkeypatch.setenv("TOKEN", "hunter2/and more")
    monkeypatch.setenv("HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("URL", "http://user:hunter2@127.0.0.1:9/hunter2/x.zarr")
    result = CliRunner().invoke(main, ["run", written(changed("input", store=store)), *options])
    assert result.exit_code in (2, 75, 1)
    assert "hunter2" not in result.output
    assert "Traceback" not in result.output


def test_a_dry_run_shows_the_names_of_variables(data):
    said = run(written(changed("output", model="${RESULTS}/m.zarr")), "--dry-run").stdout
    assert re.search(r"^input +\$\{DATA\}/ocean.zarr$", said, re.MULTILINE)
    assert re.search(r"^model +\$\{RESULTS\}/m.zarr$", said, re.MULTILINE)
    assert str(data) not in said


def test_an_empty_variable_is_refused(data, monkeypatch):
    monkeypatch.setenv("EMPTY", "")
    assert "names ${EMPTY}, which is empty" in refused(changed("output", model="${EMPTY}/model.zarr"))


# --- what is done -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_planned_and_nothing_is_touched(data, path):
    before = tree(data)
    said = run(path, "--dry-run").stdout
    assert re.search(r"^rows +4,800, in 4 chunks$", said, re.MULTILINE)
    assert tree(data) == before
    assert not os.listdir()
    jsonschema.validate(tomllib.loads(path.read_text()), SCHEMA)


def test_there_are_two_examples():
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"kind": "gmm", "k": [2], "criterion": "silhouette"}, "criterion='silhouette' is not one of 'bic'"),
        ({"kind": "kmeans", "k": "1-3"}, "n_clusters=[1, 2, 3]"),
        ({"kind": "kmeans", "k": [2, 0]}, "search.k = [2, 0]"),
        ({"kind": "kmeans", "k": "2-1000000000"}, "search.k = '2-1000000000'"),
    ],
)
def test_a_search_that_cannot_be_is_refused_by_the_dry_run_too(data, search, told):
    said = {"input": JOB["input"], "search": search, "output": {"model": "best.zarr"}}
    for options in (["--dry-run"], []):
        assert told in refused(said, *options)


def test_a_job_fits_what_the_command_fits_and_is_done_once(data):
    words = ["fit", data / "ocean.zarr", "--variable", "temp", "--variable", "salt", "--missing", "drop"]
    words += ["--model", "gmm", "-k", 3, "--random-state", 0, "--checkpoint", "c"]
    fitted = CliRunner().invoke(main, [*map(str, words), "--out", "fitted.zarr", "--labels-out", "fitted-labels.zarr"])
    assert fitted.exit_code == 0, fitted.output
    first = run(written(JOB)).stdout
    assert numbers("model.zarr") == numbers("fitted.zarr")
    assert tree("labels.zarr") == tree("fitted-labels.zarr")  # what they are made of among it
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*.zarr/**/*")}
    again = run("job.toml")
    assert again.stdout == first
    assert "pass  " not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*.zarr/**/*")} == before


def test_probabilities_and_uncertainty_stand_beside_the_labels(data):
    run(written(changed("output", probabilities=True, uncertainty=True)))
    ds = xr.open_zarr(data / "ocean.zarr", consolidated=False)[["temp", "salt"]]
    found, model = xr.open_zarr("labels.zarr", consolidated=False), daskmix.load("model.zarr")
    xr.testing.assert_equal(found.label, model.predict(ds))
    xr.testing.assert_equal(found.probability, model.predict_proba(ds))
    xr.testing.assert_equal(found.uncertainty, model.uncertainty(ds))
    assert "labels.zarr exists" in refused(changed("output", uncertainty=True))  # what else is asked is another store


def test_outputs_of_another_job_are_refused_unless_they_may_be_replaced(data):
    run(written(JOB))
    other = changed("model", k=2) | {"checkpoint": {"store": "other"}}
    assert "model.zarr exists" in refused(other)
    assert "pass  " not in run("job.toml", exit_code=2).stderr  # before any work
    run(written(other | {"output": {**JOB["output"], "overwrite": True}}))
    assert daskmix.load("model.zarr").n_components == 2
    assert "is 3" in refused(JOB | {"checkpoint": {"store": "other"}})
    run(written(JOB), "--overwrite")
    assert daskmix.load("model.zarr").n_components == 3


def test_a_search_is_that_of_select_and_done_once(data):
    said = {
        "input": JOB["input"],
        "search": {"kind": "gmm", "k": "2-3", "covariance_type": ["diag"], "n_init": 2, "random_state": 0},
        "output": JOB["output"],
        "checkpoint": JOB["checkpoint"],
    }
    first = run(written(said)).stdout
    found = daskmix.select(
        str(data / "ocean.zarr"), (2, 3), "diag", n_init=2, variables=["temp", "salt"], missing="drop", random_state=0
    )
    xr.testing.assert_identical(daskmix.load("model.zarr").to_xarray(), found.best_.to_xarray())
    again = run("job.toml")
    assert again.stdout == first
    assert "pass  " not in again.stderr


def test_the_command_line_has_another_scheduler_and_is_quiet(data):
    with dask.config.set({"distributed.comm.timeouts.connect": "500ms"}):
        said = refused(
            changed("resources", scheduler="tcp://127.0.0.1:8"), "--scheduler", "tcp://127.0.0.1:9", exit_code=75
        )
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in said
    assert run(written(JOB), "--quiet").stderr == ""


# --- processes that are killed ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    here = tmp_path_factory.mktemp("killed")
    x = np.random.default_rng(1).normal(size=(400_000, 4))
    zarr.create_array(here / "x.zarr", data=x, chunks=(2000, 4))
    return here


def started(folder, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "daskmix.cli", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def passes_of(process):
    """The numbers of the passes that a process tells, to its end."""
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return [int(number) for number in re.findall(r"^pass +(\d+)", said, re.MULTILINE)]


def killed(process):
    """What a process said until then."""
    process.send_signal(signal.SIGKILL)
    return process.communicate()[1]


def test_a_job_whose_driver_is_killed_goes_on_to_the_same_bits(folder):
    model = {"kind": "gmm", "k": 8, "random_state": 0, "max_iter": 25, "tol": 0, "accelerate": "none", "n_init": 1}
    said = {"input": {"store": "x.zarr"}, "model": model, "output": JOB["output"], "checkpoint": JOB["checkpoint"]}
    written(said, folder / "job.toml")
    fitting = started(folder, "run", "job.toml")
    for line in fitting.stderr:
        if line.startswith("pass   5"):
            break
    killed(fitting)
    labelling = started(folder, "run", "job.toml")
    while len(list((folder / "labels.zarr" / "label" / "c").glob("*"))) < 20:
        assert labelling.poll() is None, labelling.stderr.read()
        time.sleep(0.005)
    assert int(re.findall(r"^pass +(\d+)", killed(labelling), re.MULTILINE)[0]) >= 5
    assert passes_of(started(folder, "run", "job.toml")) == []
    assert passes_of(started(folder, "run", "job.toml")) == []
    words = ["fit", "x.zarr", "--model", "gmm", "-k", "8", "--random-state", "0", "--max-iter", "25", "--tol", "0"]
    words += ["--accelerate", "none", "--n-init", "1", "--checkpoint", "c"]
    told = passes_of(started(folder, *words, "--out", "fitted.zarr", "--labels-out", "fitted-labels.zarr"))
    assert told == list(range(1, len(told) + 1))
    assert daskmix.load(folder / "model.zarr").n_passes_ == len(told)
    assert numbers(folder / "model.zarr") == numbers(folder / "fitted.zarr")
    assert numbers(folder / "labels.zarr") == numbers(folder / "fitted-labels.zarr")
    xr.testing.assert_identical(
        daskmix.load(folder / "model.zarr").to_xarray(), daskmix.load(folder / "fitted.zarr").to_xarray()
    )
