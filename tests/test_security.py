"""Files are data: whatever they say, nothing of them runs, and what was changed in them is seen."""

import ast
import json
import pickle
import shutil
from pathlib import Path

import google_crc32c
import numcodecs
import numcodecs.pickles
import numpy as np
import pytest
import xarray as xr
import zarr
from hostile import MADE, Victim, X, files_of, spoiled, unsigned, whole_models, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

import daskmix
from daskmix import KMeans, load
from daskmix.cli import main
from daskmix.errors import DaskmixError, SchemaError, UnsafeStoreError
from daskmix.store import COMMON, STATE

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


def state_of(model):
    names = [name for name in (*STATE[type(model).__name__], *COMMON) if hasattr(model, name)]
    told = {name: getattr(model, name) for name in names} | model.get_params()
    del told["random_state"]  # which stays behind
    plain = {n: v for n, v in told.items() if not isinstance(v, np.ndarray) or v.dtype == object}
    arrays = {n: (v.dtype, v.shape, v.tobytes()) for n, v in told.items() if n not in plain}
    return arrays | {n: repr(list(v) if isinstance(v, np.ndarray | tuple) else v) for n, v in plain.items()}


def small_model():
    """Its files, as a mapping of zarr's own store in memory, and the model."""
    model, kept = KMeans(2, random_state=0, max_iter=1).fit(X), {}
    model.save(MemoryStore(kept))
    return model, kept


def flips(kept, bits_of):
    """Every byte of every file with a bit that is another: the file, and the store."""
    for name, whole in dict(kept).items():
        data = whole.to_bytes()
        for at in range(len(data)):
            for bit in bits_of(at):
                changed = bytearray(data)
                changed[at] ^= 1 << bit
                yield name, {**kept, name: type(whole).from_bytes(bytes(changed))}


def survivors(model, kept, bits_of):
    """How many flips there were, and those that gave another model without a word."""
    right, tried, wrong, seen = state_of(model), 0, [], 0
    for name, changed in flips(kept, bits_of):
        tried += 1
        try:
            found = load(MemoryStore(changed))
        except DaskmixError:
            seen += 1
            continue
        if type(found) is not type(model) or state_of(found) != right:
            wrong.append(name)
    return tried, seen, wrong


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
    from click.testing import CliRunner

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


FUZZ = settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@FUZZ
@given(chance=st.randoms(use_true_random=False))
def test_whatever_a_model_says_it_is_read_or_refused(chance, models, victim, tmp_path_factory):
    path = write(spoiled(models[chance.choice(sorted(models))], chance), tmp_path_factory.mktemp("spoiled") / "m.zarr")
    said = victim.opens("model", path)
    assert not said.startswith("UNTYPED"), said
    shutil.rmtree(path.parent)
