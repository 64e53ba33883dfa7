"""Files are data: whatever they say, nothing of them runs, and what was changed in them is seen."""

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import boto3
import cloudpickle
import dask.array as da
import fsspec
import google_crc32c
import numcodecs
import numcodecs.pickles
import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from distributed import Client, LocalCluster, Security
from distributed.diagnostics.plugin import SchedulerPlugin
from hostile import (
    MADE,
    Victim,
    X,
    begun_checkpoint,
    files_of,
    forged,
    signed,
    small_model,
    spoiled,
    state_of,
    survivors,
    unsigned,
    whole_models,
    write,
)  # fmt: skip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem
from zarr.storage import FsspecStore

import daskmix
from daskmix import KMeans, Run, load
from daskmix.block import Missing
from daskmix.cli import main
from daskmix.credentials import secrets_in
from daskmix.errors import (
    CheckpointWarning,
    DamagedError,
    DaskmixError,
    SchemaError,
    SecretsInGraphWarning,
    StoreExistsError,
    UnsafeStoreError,
    bare_url,
)
from daskmix.snapshots import MAGIC, unpacked
from daskmix.sources.dask import rows_from_dask_array
from daskmix.vault import vault

HOUSE = Path(daskmix.__file__).parent


# --- nothing that is read is run --------------------------------------------------------------------------------------


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_the_package_has_nothing_that_runs_what_it_reads():
    modules = {
        "pickle",
        "cloudpickle",
        "dill",
        "joblib",
        "shelve",
        "marshal",
        "yaml",
        "runpy",
        "importlib",
        "imp",
        "code",
    }
    names = {"eval", "exec", "compile", "__import__", "import_module", "read_pickle"}
    for path in HOUSE.rglob("*.py"):
        tree, where = ast.parse(path.read_text()), str(path.relative_to(HOUSE))
        imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        imported |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        found = {name.split(".")[0] for name in imported - {"importlib.metadata"}} & modules
        # The face of the package imports its own modules when they are asked for, by names that it has.
        assert found <= ({"importlib"} if where == "__init__.py" else set()), where
        for called, node in calls(tree):
            assert called.split(".")[-1] not in names or where == "__init__.py" or called == "re.compile", (
                where,
                called,
            )
            assert not (called.endswith(("load", "loads")) and called.startswith(("np", "numpy"))), (where, called)
            assert "allow_pickle" not in {word.arg for word in node.keywords}, where


def test_the_face_of_the_package_imports_only_what_it_lists():
    with pytest.raises(AttributeError):
        daskmix.__getattr__("os")


class Planted:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def as_pickle(path, mark, filters, compressor=None, version=2):
    """An array whose chunk is a pickle that makes the file `mark`, should it ever be read."""
    path.mkdir(parents=True)
    payload = pickle.dumps(Planted(mark))
    told = {"shape": [4, 2], "fill_value": None, "zarr_format": version}
    if version == 2:
        told |= {"chunks": [4, 2], "dtype": "|O", "order": "C", "filters": filters, "compressor": compressor}
        (path / ".zarray").write_text(json.dumps(told))
        (path / "0.0").write_bytes(payload)
    else:
        told |= {
            "node_type": "array", "data_type": "float64", "codecs": filters, "fill_value": 0.0, "attributes": {},
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 2]}},
            "chunk_key_encoding": {"name": "default"},
        }  # fmt: skip
        (path / "zarr.json").write_text(json.dumps(told))
        (path / "c" / "0").mkdir(parents=True)
        (path / "c" / "0" / "0").write_bytes(payload)
    return path


PICKLED = {
    "pickle": {"filters": [{"id": "pickle"}]},
    "behind text": {"filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},  # Zarr takes it for an array of text
    "behind bytes": {"filters": [{"id": "vlen-bytes"}, {"id": "pickle"}]},
    "as compressor": {"filters": [{"id": "vlen-utf8"}], "compressor": {"id": "pickle"}},
    "json": {"filters": [{"id": "json2"}]},
    "msgpack": {"filters": [{"id": "msgpack2"}]},
    "v3": {
        "filters": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "numcodecs.pickle"}],
        "version": 3,
    },
}


@pytest.fixture
def unsafe_codec(monkeypatch):
    """As older numcodecs have it, or whoever set their environment so."""
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)


@pytest.mark.parametrize("how", PICKLED)
def test_a_pickle_in_a_store_is_never_read(how, tmp_path, unsafe_codec):
    mark = tmp_path / "planted"
    path = as_pickle(tmp_path / "x.zarr", mark, **PICKLED[how])
    with pytest.raises(DaskmixError):
        KMeans(2).fit(path)
    with pytest.raises(DaskmixError):
        load(path)
    assert not mark.exists()


def test_the_payload_would_have_worked(tmp_path, unsafe_codec):
    mark = tmp_path / "planted"
    path = as_pickle(tmp_path / "x.zarr", mark, **PICKLED["behind text"])
    with pytest.raises(Exception):  # noqa: B017, PT011  what comes out is no array
        zarr.open_array(path, mode="r")[...]
    assert mark.exists()


@pytest.mark.parametrize("of", ["a coordinate", "a variable", "an array that is passed"])
def test_a_pickle_beside_the_numbers_is_never_read(of, tmp_path, unsafe_codec):
    mark, place = tmp_path / "planted", tmp_path / "x.zarr"
    xr.Dataset({"a": ("row", X[:, 0]), "b": ("row", X[:, 1])}).to_zarr(place, consolidated=False, zarr_format=2)
    name = "row" if of == "a coordinate" else "c"  # xarray reads a coordinate when it opens the store
    shutil.rmtree(place / name, ignore_errors=True)
    as_pickle(place / name, mark, **PICKLED["behind text"])
    (place / name / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["row", "other"]}))
    given = zarr.open_array(place / name, mode="r") if of == "an array that is passed" else place
    with pytest.raises(UnsafeStoreError, match="is stored as pickle, which runs what it holds"):
        KMeans(2).fit(given)
    assert not mark.exists()


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_a_bit_that_is_flipped_anywhere_in_a_model_is_seen_or_changes_nothing():
    tried, seen, wrong = survivors(*small_model(), lambda at: [at % 8])
    assert not wrong
    assert 0.3 * tried < seen < tried  # much is white space


@pytest.mark.parametrize("file", ["zarr.json", "fitted.cluster_centers_/zarr.json", "fitted.cluster_weights_/c/0"])
def test_what_was_changed_with_care_is_seen_too(file, tmp_path):
    """A digit in the attributes, a shape with its chunk, an array of another model: each is valid by itself."""
    model = KMeans(2, random_state=0, max_iter=1).fit(X)
    model.save(tmp_path / "m.zarr")
    KMeans(2, random_state=1, max_iter=1).fit(X + 1, sample_weight=np.arange(len(X))).save(tmp_path / "other.zarr")
    path = tmp_path / "m.zarr" / file
    if file.endswith("c/0"):
        shutil.copy(tmp_path / "other.zarr" / file, path)
    else:
        told = json.loads(path.read_bytes())
        if file == "zarr.json":
            told["attributes"]["state"]["fitted"]["inertia_"] += 1e-9
        else:
            told["shape"] = told["chunk_grid"]["configuration"]["chunk_shape"] = [1, 2]
        path.write_text(json.dumps(told))
    with pytest.raises(DaskmixError):
        load(tmp_path / "m.zarr")


def test_a_model_of_before_there_was_a_checksum_is_read(tmp_path):
    for name, make in MADE.items():
        model = make().fit(X)
        model.save(tmp_path / f"{name}.zarr")
        older = write(unsigned(files_of(tmp_path / f"{name}.zarr")), tmp_path / f"{name}, older.zarr")
        assert state_of(load(older)) == state_of(load(tmp_path / f"{name}.zarr"))


def test_an_array_whose_chunk_is_lost_is_no_array_of_zeros(tmp_path):
    KMeans(2, random_state=0).fit(X).save(tmp_path / "m.zarr")
    shutil.rmtree(tmp_path / "m.zarr" / "fitted.cluster_centers_" / "c")
    with pytest.raises(DaskmixError, match="what is stored is not what was written"):
        load(tmp_path / "m.zarr")


def edited(folder, change):
    """The metadata of a model, changed, without a checksum that would tell."""
    KMeans(2, random_state=0).fit(X).save(folder)
    write(unsigned(files_of(folder)), folder)
    told = json.loads((folder / "zarr.json").read_bytes())
    change(told["attributes"]["daskmix"], told["attributes"]["state"])
    (folder / "zarr.json").write_text(json.dumps(told))
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda mark, state: state["params"].update(n_clusters="__import__"), r"'n_clusters' cannot be '__import__'"),
        (lambda mark, state: state["params"].update(__class__="os"), r"parameter '__class__' is not known"),
        (lambda mark, state: state["params"].update(run="x"), r"parameter 'run' is not known"),
        (lambda mark, state: state["fitted"].update(predict=1), r"attribute 'predict' is not known"),
        (lambda mark, state: state["fitted"].update(n_features_in_=2**40), r"'cluster_centers_' cannot be float64"),
        (lambda mark, state: state["fitted"].update(feature_names_in_=["a"]), r"'feature_names_in_' cannot be \['a'\]"),
        (lambda mark, state: state["fitted"].pop("history_"), r"'history_' is not there"),
        (lambda mark, state: state["fitted"].update(history_=[1]), r"'history_' cannot be \[1\]"),
        (lambda mark, state: mark.update(kind="Estimator"), "holds no daskmix model"),
        (lambda mark, state: mark.update(kind="__builtins__"), "holds no daskmix model"),
        (lambda mark, state: mark.update(kind="GaussianMixture"), r"'fitted.cluster_.*' is none of its arrays"),
    ],
)
def test_what_cannot_be_a_model_is_refused_by_its_name(change, said, tmp_path):
    with pytest.raises(SchemaError, match=said):
        load(edited(tmp_path / "m.zarr", change))


def test_names_from_a_file_do_not_command_the_terminal(tmp_path):
    names = ["\x1b[2J\x1b]0;owned\x07", "b\u202egnp"]
    path = edited(tmp_path / "m.zarr", lambda mark, state: state["fitted"].update(feature_names_in_=names))
    found = CliRunner().invoke(main, ["inspect", str(path)])
    assert found.exit_code == 0
    assert "\x1b" not in found.output
    assert r"\x1b[2J" in found.output
    assert "\u202e" not in found.output


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return whole_models(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    whole = tmp_path_factory.mktemp("victim") / "m.zarr"
    KMeans(2, random_state=0).fit(X).save(whole)
    process = Victim(whole)
    yield process
    process.end()


def huge(path, shape, chunk=None):
    told = json.loads((path / "zarr.json").read_bytes())
    told["shape"] = told["chunk_grid"]["configuration"]["chunk_shape"] = shape
    (path / "zarr.json").write_text(json.dumps(told))
    if chunk is not None:
        file = path / "c" / "/".join("0" for _ in shape)
        file.write_bytes(chunk + google_crc32c.value(chunk).to_bytes(4, "little"))


BOMB = numcodecs.Zstd(level=1).encode(np.zeros(1 << 28, np.uint8))  # some kilobytes


@pytest.mark.parametrize(
    ("shape", "chunk"),
    [
        ([2**40, 2], None),
        ([2**62, 2], None),
        ([2**70, 2], None),
        ([2, 2**40], None),
        ([-1, 2], None),
        ([2**30, 2], bytes(BOMB)),  # as large as it says, and still out of proportion
        ([2, 2], bytes(BOMB)),
        ([2, 2], bytes(BOMB) * 30),  # frames one after the other
        ([2, 2], b""),
    ],
)
def test_what_would_fill_the_memory_is_refused_before(shape, chunk, victim, tmp_path):
    path = edited(tmp_path / "m.zarr", lambda mark, state: None)
    huge(path / "fitted.cluster_centers_", shape, chunk)
    assert victim.opens("model", path).startswith("typed ")


FUZZ = settings(max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@FUZZ
@given(chance=st.randoms(use_true_random=False))
def test_whatever_a_model_says_it_is_read_or_refused(chance, models, victim, tmp_path_factory):
    path = write(spoiled(models[chance.choice(sorted(models))], chance), tmp_path_factory.mktemp("spoiled") / "m.zarr")
    said = victim.opens("model", path)
    assert not said.startswith("UNTYPED"), said
    shutil.rmtree(path.parent)


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    return begun_checkpoint(tmp_path_factory.mktemp("begun"))


@FUZZ
@given(chance=st.randoms(use_true_random=False))
def test_whatever_is_wrong_with_a_checkpoint_it_is_gone_on_with_or_refused(chance, begun, victim, tmp_path_factory):
    path = write(spoiled(begun, chance), tmp_path_factory.mktemp("spoiled") / "c")
    said = victim.opens("going_on", path)
    assert not said.startswith("UNTYPED"), said
    shutil.rmtree(path.parent)


@settings(FUZZ, max_examples=80)
@given(chance=st.randoms(use_true_random=False))
def test_a_forged_checkpoint_ends_no_process_and_fills_no_memory(chance, begun, victim, tmp_path_factory):
    """With all checksums made anew; an error may then be of any type."""
    path = write(forged(begun, chance), tmp_path_factory.mktemp("forged") / "c")
    assert victim.opens("going_on", path)
    shutil.rmtree(path.parent)


def signed_again(path, change):
    told = json.loads(path.read_bytes())
    change(told)
    del told["sha256"]
    path.write_bytes(signed(told))


@pytest.mark.parametrize("key", ["../{}/precious", "{}/precious", "states/../../{}/precious", 7, None])
def test_a_checkpoint_cannot_name_what_is_not_its_own(key, tmp_path):
    """What a commit names is deleted once it is not used any more."""
    precious = tmp_path / "elsewhere" / "precious"
    precious.parent.mkdir()
    precious.write_bytes(b"years of work")
    place, rows = tmp_path / "c", np.random.default_rng(0).normal(size=(300, 2))
    begun_checkpoint(place, KMeans(6, random_state=0), rows)
    name = key.format(precious.parent if key.startswith("{") else "elsewhere") if isinstance(key, str) else key
    older, _ = sorted((place / "commits").iterdir())
    signed_again(older, lambda told: [stage.update(key=name) for stage in told["stages"]])
    KMeans(6, random_state=0, run=Run(checkpoint=place)).fit(rows)
    assert not older.exists()
    assert precious.read_bytes() == b"years of work"


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.update(number="../x"),
        lambda told: told.update(number=10**9),
        lambda told: told.update(seed="x"),
        lambda told: told.update(identity=[]),
        lambda told: told["stages"][0].update(nbytes="x"),
        lambda told: told["stages"][0].update(run="os.system"),
    ],
)
def test_what_a_commit_says_is_of_the_right_kind(change, begun, tmp_path):
    place = write(begun, tmp_path / "c")
    for commit in (place / "commits").iterdir():
        signed_again(commit, change)
    with pytest.warns(CheckpointWarning), pytest.raises(DamagedError):
        KMeans(2, random_state=0, run=Run(checkpoint=place)).fit(np.zeros((8, 2)) + np.arange(8)[:, None])


@pytest.mark.parametrize(
    "root",
    [
        {"number": ["V2000000000", 2000000000]},
        {"number": ["O", 1]},
        {"choice": ["Tally", "x"]},
        {"choice": ["os", "system"]},
        {"object": 7},
        {"__class__": 1},
    ],
)
def test_a_snapshot_makes_only_what_is_known(root):
    told = json.dumps({"root": root, "objects": [], "arrays": []}).encode()
    with pytest.raises(DamagedError):
        unpacked(MAGIC + len(told).to_bytes(8, "little") + told)


# --- credentials ------------------------------------------------------------------------------------------------------

SECRET = "SECRETwJalrXUtnFEMI/K7MDENG+bPxRfiCY"


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        (f"s3://AKIA:{SECRET}@bucket/x.zarr", "s3://bucket/x.zarr"),
        (f"https://user:{SECRET}@host:8080/x?X-Amz-Signature={SECRET}#{SECRET}", "https://host:8080/x"),
        (f"https://host/x.zarr?X-Amz-Credential=a%2Fb&X-Amz-Signature={SECRET}", "https://host/x.zarr"),
        (f"simplecache::ftp://me:{SECRET}@host/x", "simplecache::ftp://host/x"),
        (f"Error: GET 'https://u:{SECRET}@h/x?sig={SECRET}' failed", "Error: GET 'https://h/x' failed"),
        ("s3://bucket/mail@home/x.zarr", "s3://bucket/mail@home/x.zarr"),
        ("tcp://10.0.0.1:8786", "tcp://10.0.0.1:8786"),
        ("what? /no/url@all", "what? /no/url@all"),
    ],
)
def test_a_url_is_shown_without_its_credentials(url, bare):
    assert bare_url(url) == bare
    assert str(StoreExistsError(f"{url} exists")) == f"{bare} exists"


def files_in(url):
    fs, root = fsspec.url_to_fs(url)
    return {path: fs.cat_file(path) for path in fs.find(root)}


def test_no_message_no_repr_and_no_file_shows_the_credentials_of_a_url(tmp_path, capsys):
    url = f"memory://user:{SECRET}@host/{tmp_path.name}"
    model = KMeans(2, random_state=0, run=Run(checkpoint=f"{url}/c", progress="log"), verbose=1).fit(X)
    told = [repr(model), repr(model.run), model._repr_html_(), str(vault(f"{url}/c")), str(model.history_)]
    model.save(f"{url}/m.zarr")
    zarr.create_array(f"{url}/x.zarr", data=X)
    for what in (
        lambda: model.save(f"{url}/m.zarr"),
        lambda: model.set_params(n_clusters=3).fit(X),
        lambda: load(f"{url}/nothing.zarr"),
        lambda: KMeans(2).fit(f"{url}/nothing.zarr"),
    ):
        with pytest.raises(DaskmixError) as error:
            what()
        told.append(str(error.value) + repr(error.value))
    fit = ["fit", f"{url}/x.zarr", "--model", "kmeans", "-k", "2", "--out"]
    codes = []
    for words in [
        ["inspect", f"{url}/m.zarr"], ["inspect", f"{url}/nothing.zarr"], [*fit, f"{url}/m2.zarr"],
        [*fit, f"{url}/m2.zarr"], [*fit, f"{url}/x.zarr"], [*fit, f"{url}/m3.zarr", "--checkpoint", f"{url}/c3"],
        ["predict", f"{url}/m2.zarr", f"{url}/x.zarr", "--out", f"{url}/labels.zarr"],
    ]:  # fmt: skip
        found = CliRunner().invoke(main, words)
        codes.append(found.exit_code)
        told.append(found.output)
    assert codes == [0, 2, 0, 2, 2, 0, 0]
    objects = [
        data for name in ("c", "c3", "m.zarr", "m2.zarr", "labels.zarr") for data in files_in(f"{url}/{name}").values()
    ]
    assert len(objects) > 10
    for text in [*told, *capsys.readouterr(), *map(repr, objects)]:
        assert SECRET not in text
        assert SECRET[:12] not in text


@pytest.fixture(scope="module")
def bucket():
    """The address of an object store on the loopback that holds rows."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=address, **keys).create_bucket(Bucket="bucket")
    store = FsspecStore.from_url("s3://bucket/x.zarr", storage_options=options_of(address))
    zarr.create_array(store, data=X, chunks=(20, 2))
    yield address
    server.stop()


def options_of(address):
    return {"key": "key", "secret": SECRET, "client_kwargs": {"endpoint_url": address}}


class Sent(SchedulerPlugin):
    """Every task as it comes to the scheduler."""

    name = "sent"

    def __init__(self):
        self.bytes = []

    def update_graph(self, scheduler, **told):
        self.bytes.append(cloudpickle.dumps([ts.run_spec for ts in scheduler.tasks.values()]))


@pytest.fixture(scope="module")
def cluster(bucket):
    """A client of a cluster whose environment has the secret, and what comes to its scheduler."""
    known = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": SECRET, "ENDPOINT_URL": bucket, "DEFAULT_REGION": "us-east-1"}
    S3FileSystem.clear_instance_cache()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in known.items():
            patch.setenv(f"AWS_{name}", value)
        with (
            LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0") as cluster,
            Client(cluster) as client,
        ):
            sent = Sent()
            cluster.scheduler.add_plugin(sent)
            yield client, sent
    S3FileSystem.clear_instance_cache()


def test_a_secret_in_the_environment_stays_there(cluster, capsys):
    url, (client, sent) = "s3://bucket/x.zarr", cluster
    with warnings.catch_warnings():
        warnings.simplefilter("error", SecretsInGraphWarning)
        run = Run(checkpoint="s3://bucket/checkpoint", progress="log")
        model = KMeans(2, random_state=0, verbose=1, run=run).fit(url)
        lazy = da.from_zarr(url)
        KMeans(2, random_state=0).fit(lazy)
        model.predict(lazy).compute()
        model.save("s3://bucket/m.zarr")
        with pytest.raises(DaskmixError) as error:
            KMeans(2).fit("s3://bucket/nothing.zarr")
        found = CliRunner().invoke(main, ["inspect", "s3://bucket/m.zarr"])
        logs = [client.get_worker_logs(), client.get_scheduler_logs(), client.get_events()]
        objects = files_in("s3://bucket/m.zarr") | files_in("s3://bucket/checkpoint")
    told = [repr(model), repr(run), str(model.history_), str(error.value), found.output, repr(logs)]
    assert len(objects) > 5
    assert sum(b"daskmix" in data for data in sent.bytes) > 3
    secret, texts = SECRET.encode(), [text.encode() for text in (*told, *capsys.readouterr())]
    for data in [*sent.bytes, *objects.values(), *texts, cloudpickle.dumps(model)]:
        assert secret not in data


@pytest.mark.parametrize("kind", ["a zarr array", "a dask array", "an xarray array"])
def test_a_secret_that_was_put_into_rows_is_told_of(kind, bucket, cluster):
    _, sent = cluster
    sent.bytes.clear()
    array = zarr.open_array(FsspecStore.from_url("s3://bucket/x.zarr", storage_options=options_of(bucket)), mode="r")
    rows = {
        "a zarr array": lambda: array,
        "a dask array": lambda: da.from_zarr(array) + 0.0,
        "an xarray array": lambda: xr.DataArray(da.from_zarr(array), dims=("row", "feature")),
    }[kind]()
    with pytest.warns(SecretsInGraphWarning) as told:
        KMeans(2, random_state=0).fit(rows)
    assert any(SECRET.encode() in data for data in sent.bytes)  # so the warning is true, and the test above can fail
    (warning,) = [str(w.message) for w in told if issubclass(w.category, SecretsInGraphWarning)]
    assert "secret of a S3FileSystem" in warning
    assert "environment" in warning
    assert SECRET not in warning


def test_rows_without_secrets_are_not_suspected(tmp_path):
    zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(20, 2))
    for rows in (da.from_array(X, chunks=(20, 2)), da.from_zarr(tmp_path / "x.zarr")):
        assert secrets_in(rows_from_dask_array(rows, None, Missing.refuse)) == []


# --- TLS --------------------------------------------------------------------------------------------------------------


def certified(folder):
    """An authority of its own, and a certificate of it for this machine."""
    folder.mkdir()
    now, keys = datetime.now(UTC), [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    authority, node = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{folder.name} {n}")]) for n in ("ca", "node")
    )
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    for file, name, key in (("ca.pem", authority, keys[0]), ("cert.pem", node, keys[1])):
        built = x509.CertificateBuilder().subject_name(name).issuer_name(authority).public_key(key.public_key())
        built = built.serial_number(x509.random_serial_number()).add_extension(here, critical=False)
        built = built.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
        built = built.add_extension(x509.BasicConstraints(ca=file == "ca.pem", path_length=None), critical=True)
        (folder / file).write_bytes(built.sign(keys[0], hashes.SHA256()).public_bytes(Encoding.PEM))
    key = keys[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(key)
    return folder


def settings_of(folder):
    """Dask's settings of TLS, as the environment has them."""
    told = {"CA_FILE": folder / "ca.pem"}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        told |= {f"{role}__CERT": folder / "cert.pem", f"{role}__KEY": folder / "key.pem"}
    return {f"DASK_DISTRIBUTED__COMM__TLS__{name}": str(value) for name, value in told.items()}


@contextmanager
def served(folder, protocol, environment):
    """The address of a scheduler with one worker, as processes of their own."""
    file, started = folder / f"{protocol}.json", []
    environment = {**os.environ, **environment}
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    try:
        for words in (
            ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--protocol", protocol, *common],
            ["distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", *common],
        ):
            with open(folder / f"{protocol}-{len(started)}.log", "wb") as log:
                started.append(
                    subprocess.Popen(
                        [sys.executable, "-m", *words], env=environment, cwd=folder, stderr=log, stdout=log
                    )
                )
            until = time.monotonic() + 60
            while not file.exists() or not file.stat().st_size:
                assert time.monotonic() < until, "no scheduler came up"
                time.sleep(0.05)
        yield json.loads(file.read_text())["address"]
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    """A folder with rows, two authorities, and the addresses of a scheduler with TLS and of one without."""
    folder = tmp_path_factory.mktemp("tls")
    zarr.create_array(folder / "x.zarr", data=X, chunks=(20, 2))
    own, foreign = certified(folder / "own"), certified(folder / "foreign")
    with served(folder, "tls", settings_of(own)) as tls, served(folder, "tcp", {}) as tcp:
        yield folder, own, foreign, tls, tcp


def fit_at(address, folder, out, environment):
    words = ["fit", "x.zarr", "--model", "kmeans", "-k", "2", "--random-state", "0", "--quiet", "--out", out]
    environment = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s", **environment}
    return subprocess.run(
        [sys.executable, "-m", "daskmix.cli", *words, "--scheduler", address],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_command_fits_on_a_cluster_with_tls_as_the_environment_says(encrypted):
    folder, own, _, tls, _ = encrypted
    assert tls.startswith("tls://")
    done = fit_at(tls, folder, "m.zarr", settings_of(own))
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(
        load(folder / "m.zarr").cluster_centers_, KMeans(2, random_state=0).fit(folder / "x.zarr").cluster_centers_
    )


def test_a_fit_runs_on_a_cluster_with_tls_by_a_client_that_was_given_certificates(encrypted):
    folder, own, _, tls, _ = encrypted
    files = {f"tls_client_{name}": str(own / f"{name}.pem") for name in ("cert", "key")}
    with Client(tls, security=Security(tls_ca_file=str(own / "ca.pem"), require_encryption=True, **files)):
        fitted = KMeans(2, random_state=0).fit(folder / "x.zarr")
    np.testing.assert_array_equal(
        fitted.cluster_centers_, KMeans(2, random_state=0).fit(folder / "x.zarr").cluster_centers_
    )


@pytest.mark.parametrize(
    "who", ["of another authority", "without certificates", "to one without TLS", "that must encrypt"]
)
def test_who_does_not_agree_on_tls_is_refused_at_once_as_badly_configured(who, encrypted):
    folder, own, foreign, tls, tcp = encrypted
    address, environment = {
        "of another authority": (tls, settings_of(foreign)),
        "without certificates": (tls, {}),
        "to one without TLS": (tcp.replace("tcp://", "tls://"), settings_of(own)),
        "that must encrypt": (tcp, {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True", **settings_of(own)}),
    }[who]
    done = fit_at(address, folder, "never.zarr", environment)
    assert done.returncode == 2, done.stderr
    assert f"the Dask scheduler at {address} and this client do not agree on TLS: " in done.stderr
    assert "DASK_DISTRIBUTED__COMM__TLS__CA_FILE" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "never.zarr").exists()


def test_who_does_not_speak_tls_to_one_who_does_is_refused(encrypted):
    """The scheduler hangs up without a word, as a network may: so this is worth another try."""
    folder, _, _, tls, _ = encrypted
    address = tls.replace("tls://", "tcp://")
    done = fit_at(address, folder, "never.zarr", {})
    assert done.returncode == 75  # it may be one that is not there yet
    assert f"no Dask scheduler answers at {address}" in done.stderr
    assert "one that asks for TLS is reached as tls://" in done.stderr
