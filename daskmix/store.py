"""Models and labels <-> Zarr: no pickle, a checksum on every chunk, and a mark when all is written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
import zarr
import zarr.codecs
import zarr.errors
import zarr.storage
from dask.base import tokenize

from daskmix.again import reached, transient
from daskmix.checkpoint import Provenance
from daskmix.errors import (
    AccessDeniedError,
    BadChunkError,
    DaskmixError,
    IncompleteStoreError,
    SchemaError,
    SourceUnavailableError,
    StoreExistsError,
    StoreNotFoundError,
    UnwritableError,
    bare_url,
)
from daskmix.models import COMMON, NOT_STORED, STATE, Sections, as_stored, checked, digest, numbers
from daskmix.regions import chunked, fits, left
from daskmix.sources.chunks import written
from daskmix.vault import Vault, vault

SCHEMA = 1
MARK = "daskmix"
DIGEST = "sha256"  # in the mark of a model: of all that it is made of
ROWS = "rows"  # the kind of a store that holds values of rows
LEFT_OUT, NOISE = -2, -1  # labels of rows that were left out, and of those that belong to no component
CHUNK_ROWS = 1 << 20


def _codecs() -> tuple[Any, ...]:
    """Compressed, then checked: a flipped bit is an error, not a number."""
    return (zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec())


def vacant(path: Any, overwrite: bool = False, of: Provenance | None = None) -> bool:
    """Make sure that a store can be written here; whether there is one to replace, or to go on with.

    One that was begun from the same, as `of` says, and not finished is gone on with; a half-written model is replaced.

    Raises
    ------
    StoreExistsError
        There is one and `overwrite` was not asked for, or something that is not a Zarr store.
    """
    path = place_of(path)
    taken = _is_store(path)
    root = path.root if isinstance(path, zarr.storage.LocalStore) else path
    if not taken and isinstance(root, Path) and (root.is_file() or (root.is_dir() and any(root.iterdir()))):
        raise StoreExistsError(f"{root} exists and is not a Zarr store; it is never replaced, choose another path")
    if taken and not overwrite and not _is_rest(path, of):
        raise StoreExistsError(f"{path} exists; pass another path, or overwrite (--overwrite) where there is one")
    return taken


def place_of(path: Any) -> Any:
    """What names a local directory as a path, anything else as it is."""
    if isinstance(path, str) and ("://" not in path or path.startswith("file://")):
        return Path(path.removeprefix("file://"))
    return Path(path) if isinstance(path, os.PathLike) else path


def _is_store(path: Any) -> bool:
    try:
        reached(path, lambda: zarr.open(path, mode="r"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return True


def finished(path: Any, of: Provenance | None) -> bool:
    """Whether there is a store that was made from the same, whole."""
    mark = _mark_at(path)
    return of is not None and of.is_of(mark) and bool(mark.get("complete"))


def _is_rest(path: Any, of: Provenance | None) -> bool:
    """Whether there is a part of a model, which is of no use, or of values that were made from the same."""
    mark = _mark_at(path)
    return mark.get("complete") is False and (mark.get("kind") in STATE or (of is not None and of.is_of(mark)))


def _mark_at(path: Any) -> Mapping[str, Any]:
    try:
        return store_state(path)
    except (StoreNotFoundError, SchemaError):
        return {}


def _begin(path: Any, overwrite: bool, kind: str, of: Provenance | None) -> zarr.Group:
    """An empty group that says that it is not complete."""
    taken = vacant(path, overwrite, of)
    return zarr.create_group(place_of(path), overwrite=taken, attributes={MARK: _mark(kind, False, of)})


def _mark(kind: str, complete: bool, of: Provenance | None) -> dict[str, Any]:
    made_of = {} if of is None else {"of": of.digest, "seed": of.seed}
    return {"kind": kind, "schema": SCHEMA, "complete": complete} | made_of


# --- models -----------------------------------------------------------------------------------------------------------


def save_model(model: Any, path: Any, *, overwrite: bool = False, of: Provenance | None = None) -> None:
    """Write a fitted estimator: numbers as arrays, everything else as JSON attributes, the mark last."""
    kind = type(model).__name__
    with _writing(path):
        _save(model, path, kind, overwrite, of)


def _save(model: Any, path: Any, kind: str, overwrite: bool, of: Provenance | None) -> None:
    group = _begin(path, overwrite, kind, of)
    params = {name: value for name, value in model.get_params(deep=False).items() if name not in NOT_STORED}
    plain: dict[str, Any] = {"params": {}, "fitted": {}}
    arrays: dict[str, np.ndarray] = {}
    for section, values in (("params", params), ("fitted", _state(model, kind))):
        for name, value in values.items():
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
                arrays[f"{section}.{name}"] = as_stored(value)
            else:
                plain[section][name] = _as_json(name, value)
    for name, array in arrays.items():
        _write_array(group, name, array)
    group.attrs.update({"state": plain, "versions": {"daskmix": version("daskmix")}})
    group.attrs[MARK] = _mark(kind, True, of) | {DIGEST: digest(kind, plain, arrays)}


def _state(model: Any, kind: str) -> dict[str, Any]:
    return {name: getattr(model, name) for name in (*STATE[kind], *COMMON) if hasattr(model, name)}


def _write_array(group: zarr.Group, name: str, value: np.ndarray) -> None:
    chunks = tuple(max(1, n) for n in value.shape)
    array = group.create_array(name, shape=value.shape, dtype=value.dtype, chunks=chunks, compressors=_codecs())
    array[...] = value


def _as_json(name: str, value: Any) -> Any:
    """A value that JSON can hold; a start given as a model or a callable is not part of what was fitted."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if name in ("init", "init_params") and not isinstance(value, str | list):
        return "auto"
    return json.loads(json.dumps(value, default=_number))


def _number(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, set | frozenset | range) else str(value)


def load(path: Any) -> Any:
    """A model that was saved.

    Parameters
    ----------
    path : str, path or Zarr store

    Returns
    -------
    KMeans, BisectingKMeans, GaussianMixture or BayesianGaussianMixture

    Raises
    ------
    StoreNotFoundError
        There is no store.
    SchemaError
        It holds no model, or one that a newer daskmix wrote.
    IncompleteStoreError
        Writing it was interrupted.
    BadChunkError
        What is stored does not match its checksum.
    """
    where = bare_url(str(path))
    group = open_group(path)
    mark = _mark_of(group)
    kind, schema = mark.get("kind"), mark.get("schema", 0)
    if isinstance(schema, int) and schema > SCHEMA:
        raise SchemaError(f"{where} has schema {schema}, this daskmix reads up to {SCHEMA}; upgrade daskmix to read it")
    if not isinstance(kind, str) or kind not in STATE:
        raise SchemaError(f"{where} holds no daskmix model; models are what save() or `daskmix fit --out` writes")
    if mark.get("complete") is not True:
        raise IncompleteStoreError(f"{where}: writing this model was interrupted; save it again")
    try:
        return _made(kind, mark, group)
    except BadChunkError as error:
        raise type(error)(f"{where}: {error}; restore the store or fit again") from error
    except (SchemaError, RecursionError) as error:
        said = error if isinstance(error, SchemaError) else "it is nested too deeply"
        raise SchemaError(f"{where} holds no model that can be used: {said}; restore the store or fit again") from error


def _made(kind: str, mark: Mapping[str, Any], group: zarr.Group) -> Any:
    """The estimator that is stored here.

    Raises
    ------
    SchemaError, BadChunkError
    """
    from daskmix import estimators  # they know the store; it knows them only when asked

    constructor: Any = getattr(estimators, kind)
    defaults = {n: value for n, value in constructor().get_params(deep=False).items() if n not in NOT_STORED}
    sections = _sections(kind, defaults, mark, group)
    checked(kind, defaults, sections)
    model = constructor(**sections["params"])
    for name in (*STATE[kind], *COMMON):
        if name in sections["fitted"]:
            setattr(model, name, sections["fitted"][name])
    if hasattr(model, "feature_names_in_"):
        model.feature_names_in_ = np.asarray(model.feature_names_in_, dtype=object)
    if hasattr(model, "cluster_centers_"):
        model._n_features_out = len(model.cluster_centers_)
    return model


def _sections(kind: str, defaults: Mapping[str, Any], mark: Mapping[str, Any], group: zarr.Group) -> Sections:
    """Parameters and state as they were written: names that are known, and the bytes that were summed."""
    plain: Any = group.attrs.get("state")
    if not isinstance(plain, dict) or not all(isinstance(plain.get(s), dict) for s in ("params", "fitted")):
        raise SchemaError("it has no state")
    known = {*(f"params.{name}" for name in defaults), *(f"fitted.{name}" for name in (*STATE[kind], *COMMON))}
    arrays: dict[str, np.ndarray] = {}
    for name, array in _arrays(group):
        if name not in known:
            raise SchemaError(f"{name!r} is none of its arrays")
        arrays[name] = _read(name, array, vault(group.store))
    # Models of before there was one have a mark of three words.
    if set(mark) != set(_mark(kind, True, None)) and mark.get(DIGEST) != digest(kind, plain, arrays):
        raise BadChunkError("what is stored is not what was written")
    sections: dict[str, dict[str, Any]] = {name: dict(plain[name]) for name in ("params", "fitted")}
    for name, values in arrays.items():
        section, _, attribute = name.partition(".")
        sections[section][attribute] = values
    return sections


def _arrays(group: zarr.Group) -> list[tuple[str, Any]]:
    try:
        return reached(group.store_path, lambda: list(group.members()))
    except DaskmixError:
        raise
    except Exception as error:  # whatever the words of a file lead to
        raise BadChunkError(f"its arrays cannot be read: {_in_short(error)}") from error


def _read(name: str, array: Any, objects: Vault) -> np.ndarray:
    if not isinstance(array, zarr.Array):
        raise SchemaError(f"{name!r} is no array")
    try:
        return reached(objects, lambda: numbers(array, objects))
    except (SchemaError, SourceUnavailableError, AccessDeniedError) as error:
        raise type(error)(f"{name} {error}") from error
    except Exception as error:
        said = error if isinstance(error, DaskmixError) else f"cannot be decoded: {_in_short(error)}"
        raise BadChunkError(f"{name} cannot be read: it {said}") from error


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {shorten(str(error), 200)}"


def open_group(path: Any, mode: Literal["r", "r+"] = "r") -> zarr.Group:
    """The group at this path or URL, to read, or to change.

    Raises
    ------
    StoreNotFoundError
        There is none.
    AccessDeniedError, SourceUnavailableError
        Its server refuses, or cannot be reached.
    """
    where = bare_url(str(path))
    try:
        node = reached(path, lambda: zarr.open(place_of(path), mode=mode))
    except (FileNotFoundError, NotADirectoryError, zarr.errors.NodeNotFoundError) as error:
        raise StoreNotFoundError(f"there is no Zarr store at {where}") from error
    except DaskmixError:
        raise
    except Exception as error:  # whatever the words of a file lead to
        raise StoreNotFoundError(f"{where} cannot be opened as a Zarr store: {_in_short(error)}") from error
    if not isinstance(node, zarr.Group):
        raise SchemaError(
            f"{where} is a Zarr array, not a group that daskmix wrote; pass the path of a model or labels"
        )
    return node


# --- labels -----------------------------------------------------------------------------------------------------------


def write_rows(values: Any, path: Any, *, overwrite: bool = False) -> None:
    """Write values of rows to a Zarr group, region by region from the tasks that compute them.

    Where the same values were being written there and were cut off, what is there is not computed again.

    Parameters
    ----------
    values : DataArray, Dataset, Dask array or NumPy array
        As `predict` returns them; several in one Dataset share their reads. Arrays without a name are called `label` if
        they are integers, else `value`.
    path : str or path
        Where to. The group is marked complete when the last region is written.
    overwrite : bool
        Replace a store that is there.

    Raises
    ------
    StoreExistsError
        There is something at `path` already.
    """
    write_values(values, path, overwrite=overwrite)


def write_values(values: Any, path: Any, *, overwrite: bool = False, of: Provenance | None = None) -> None:
    """The same, where more is known of what the values are made of than Dask can tell."""
    dataset = _as_dataset(values)
    anew, of = overwrite and of is None, of or _told(dataset)
    # xarray writes the dataset's attributes over those of the group.
    dataset = regular(dataset).assign_attrs({MARK: _mark(ROWS, False, of)})
    with _writing(path):
        _write(dataset, path, overwrite, anew, of)


@contextmanager
def _writing(path: Any) -> Iterator[None]:
    """An error of the disk, or of what else is written to, says where that is."""
    try:
        yield
    except OSError as error:
        if isinstance(error, DaskmixError) or error.errno is None or transient(error):
            raise
        raise UnwritableError(
            f"{path} could not be written: {error}; what is there says that it is not complete; mend that and "
            "run it again"
        ) from error


def _write(dataset: xr.Dataset, path: Any, overwrite: bool, anew: bool, of: Provenance | None) -> None:
    """All of it, or the rest."""
    goes_on = not anew and _is_rest(path, of) and fits(open_group(path), dataset)
    group = open_group(path, "r+") if goes_on else _begin(path, overwrite, ROWS, of)
    # What was computed is written, also where it is all fill value: so it can be told how far writing came.
    how: Any = {"store": group.store, "group": group.path or None, "consolidated": False, "write_empty_chunks": True}
    if goes_on:
        # Coordinates are in memory, and soon written again.
        dataset.drop_vars(list(chunked(dataset))).to_zarr(**how, mode="a")
        for part, where in left(group, dataset):
            part.to_zarr(**how, region=where)
    else:
        encoding = {name: _encoding(variable) for name, variable in dataset.items()}
        dataset.to_zarr(**how, mode="a", encoding=encoding, zarr_format=3)
    zarr.open_group(place_of(path), mode="r+").attrs[MARK] = _mark(ROWS, True, of)


def _told(dataset: xr.Dataset) -> Provenance | None:
    """What tells lazy values from others; None where they are in memory, and soon written again."""
    return Provenance(tokenize(dataset)) if dataset.chunks else None


def _as_dataset(values: Any) -> xr.Dataset:
    if isinstance(values, xr.Dataset):
        return values
    if isinstance(values, xr.DataArray):
        return values.to_dataset(name=values.name or "value")
    if hasattr(values, "to_dask_array"):
        values = values.to_dask_array()
    if isinstance(values, da.Array) and any(np.isnan(n) for n in values.shape):
        values = values.compute_chunk_sizes()
    dims = [f"dim_{i}" for i in range(values.ndim)] if values.ndim > 1 else ["row"]
    return xr.Dataset({"label" if values.dtype.kind == "i" else "value": (dims, values)})


def regular(dataset: xr.Dataset) -> xr.Dataset:
    """The same with chunks of one size along each dim, as Zarr needs them; already regular ones are left alone."""
    dataset = dataset.unify_chunks().drop_encoding()  # how the input was stored is not how labels are
    return dataset.chunk({dim: max(sizes) for dim, sizes in dataset.chunks.items() if _uneven(sizes)})


def _uneven(sizes: Sequence[int]) -> bool:
    return len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]


def _encoding(variable: xr.DataArray) -> dict[str, Any]:
    encoding: dict[str, Any] = {"compressors": _codecs()}
    if variable.chunks is not None:
        encoding["chunks"] = tuple(max(1, sizes[0]) for sizes in variable.chunks)
    elif variable.ndim:
        encoding["chunks"] = (max(1, min(CHUNK_ROWS, variable.shape[0])), *(max(1, n) for n in variable.shape[1:]))
    if variable.name == "label":
        encoding |= {"dtype": np.dtype(np.int32), "_FillValue": np.int32(LEFT_OUT)}
    return encoding


def store_state(path: Any) -> Mapping[str, Any]:
    """What daskmix wrote about a store: its kind and whether it is complete; empty if it is not one of ours."""
    return _mark_of(open_group(path))


def _mark_of(group: zarr.Group) -> Mapping[str, Any]:
    mark = group.attrs.get(MARK)
    return mark if isinstance(mark, Mapping) else {}


def refuse_incomplete(path: Any) -> None:
    """Raise where a store of ours was begun and never finished.

    Raises
    ------
    IncompleteStoreError
    """
    try:
        state = store_state(path)
    except SchemaError:
        return
    if state and not state.get("complete"):
        raise IncompleteStoreError(
            f"{path} was begun and never finished, {how_far(path)}; write it again with overwrite"
        )


def how_far(path: Any) -> str:
    """How much of a store of values of rows was written, in words."""
    arrays: dict[str, Any] = dict(open_group(path).arrays())
    coordinates = {name for a in arrays.values() for name in str(a.attrs.get("coordinates", "")).split()}
    # Of coordinates, which are written whole, chunks of zeros are left out.
    of_rows = {
        name: a for name, a in arrays.items()
        if name not in coordinates and (a.metadata.dimension_names or ()) != (name,)
    }  # fmt: skip
    there, total = written(of_rows)
    return f"{there:,} of {total:,} chunks written"
