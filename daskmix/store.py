"""Models and labels <-> Zarr: no pickle, a checksum on every chunk, and a mark when all is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
import zarr.codecs

from daskmix.errors import IncompleteStoreError, SchemaError, StoreExistsError, StoreNotFoundError

SCHEMA = 1
MARK = "daskmix"
LEFT_OUT = -2
CHUNK_ROWS = 1 << 20

# What a fitted model consists of, beside its parameters.
STATE = {
    "KMeans": ("cluster_centers_", "cluster_weights_", "inertia_", "n_iter_", "converged_"),
    "GaussianMixture": (
        "weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_",
        "lower_bound_", "converged_", "n_iter_", "_mass", "_certainty",
    ),
}  # fmt: skip
COMMON = ("n_features_in_", "feature_names_in_", "feature_units_", "history_", "n_passes_", "bytes_read_", "seed_")
NOT_STORED = ("run", "random_state")


def _codecs() -> tuple[Any, ...]:
    """Compressed, then checked: a flipped bit is an error, not a number."""
    return (zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec())


def vacant(path: Any, overwrite: bool) -> None:
    """Make sure that a store can be written here.

    Raises
    ------
    StoreExistsError
        There is something already and `overwrite` was not asked for.
    """
    if exists(path):
        if not overwrite:
            raise StoreExistsError(f"{path} exists; pass overwrite (--overwrite) to replace it, or another path")
        if _is_local(path):
            _remove(Path(path))


def exists(path: Any) -> bool:
    """Whether anything stands at this path or URL."""
    if _is_local(path):
        place = Path(path)
        return place.exists() and (not place.is_dir() or any(place.iterdir()))
    try:
        zarr.open(path, mode="r")
    except (FileNotFoundError, KeyError, ValueError):
        return False
    return True


def _is_local(path: Any) -> bool:
    return isinstance(path, os.PathLike) or (isinstance(path, str) and "://" not in path)


def _remove(place: Path) -> None:
    """Remove a Zarr store, and nothing that is not one."""
    if not any((place / name).exists() for name in ("zarr.json", ".zgroup", ".zarray")):
        raise StoreExistsError(f"{place} exists and is not a Zarr store; it is not replaced, choose another path")
    shutil.rmtree(place)


# --- models -----------------------------------------------------------------------------------------------------------


def save_model(model: Any, path: Any, *, overwrite: bool = False) -> None:
    """Write a fitted estimator: numbers as arrays, everything else as JSON attributes, the mark last."""
    vacant(path, overwrite)
    kind = type(model).__name__
    group = zarr.create_group(path, overwrite=overwrite, attributes={MARK: {"kind": kind, "complete": False}})
    params = {name: value for name, value in model.get_params(deep=False).items() if name not in NOT_STORED}
    plain: dict[str, Any] = {"params": {}, "fitted": {}}
    for section, values in (("params", params), ("fitted", _state(model, kind))):
        for name, value in values.items():
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
                _write_array(group, f"{section}.{name}", value)
            else:
                plain[section][name] = _as_json(name, value)
    group.attrs.update({"state": plain, "versions": {"daskmix": version("daskmix"), "schema": SCHEMA}})
    group.attrs[MARK] = {"kind": kind, "schema": SCHEMA, "complete": True}


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
    return str(value)


def load(path: Any) -> Any:
    """A model that was saved.

    Parameters
    ----------
    path : str, path or Zarr store

    Returns
    -------
    KMeans or GaussianMixture

    Raises
    ------
    StoreNotFoundError
        There is no store.
    SchemaError
        It holds no model, or one that a newer daskmix wrote.
    IncompleteStoreError
        Writing it was interrupted.
    """
    from daskmix.estimators import GaussianMixture, KMeans  # they know the store; it knows them only when asked

    group = open_group(path)
    mark = group.attrs.get(MARK)
    kinds = {"KMeans": KMeans, "GaussianMixture": GaussianMixture}
    if not isinstance(mark, Mapping) or mark.get("kind") not in kinds:
        raise SchemaError(f"{path} holds no daskmix model; models are what save() or `daskmix fit --out` writes")
    if not mark.get("complete"):
        raise IncompleteStoreError(f"{path}: writing this model was interrupted; save it again")
    if mark.get("schema", 0) > SCHEMA:
        raise SchemaError(
            f"{path} has schema {mark['schema']}, this daskmix reads up to {SCHEMA}; upgrade daskmix to read it"
        )
    sections: dict[str, dict[str, Any]] = {name: dict(values) for name, values in group.attrs["state"].items()}
    for name, array in group.arrays():
        section, _, attribute = name.partition(".")
        sections[section][attribute] = np.asarray(array[...])
    kind: str = mark["kind"]
    constructor: Any = kinds[kind]
    model = constructor(**sections["params"])
    for name in (*STATE[kind], *COMMON):
        if name in sections["fitted"]:
            setattr(model, name, sections["fitted"][name])
    if hasattr(model, "feature_names_in_"):
        model.feature_names_in_ = np.asarray(model.feature_names_in_, dtype=object)
    if kind == "KMeans":
        model._n_features_out = len(model.cluster_centers_)
    return model


def open_group(path: Any) -> zarr.Group:
    """The group at this path or URL, to read.

    Raises
    ------
    StoreNotFoundError
        There is none.
    """
    try:
        node = zarr.open(path, mode="r")
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise StoreNotFoundError(f"there is no Zarr store at {path}") from error
    if not isinstance(node, zarr.Group):
        raise SchemaError(f"{path} is a Zarr array, not a group")
    return node


# --- labels -----------------------------------------------------------------------------------------------------------


def write_rows(values: Any, path: Any, *, overwrite: bool = False) -> None:
    """Write values of rows to a Zarr group, region by region from the tasks that compute them.

    Parameters
    ----------
    values : DataArray, Dataset, Dask array or NumPy array
        As `predict` returns them; several in one Dataset share their reads.
    path : str or path
        Where to. The group is marked complete when the last region is written.
    overwrite : bool
        Replace a store that is there.

    Raises
    ------
    StoreExistsError
        There is something at `path` already.
    """
    vacant(path, overwrite)
    dataset = _as_dataset(values)
    encoding = {str(name): _encoding(variable) for name, variable in dataset.data_vars.items()}
    for name, variable in dataset.data_vars.items():
        if encoding[str(name)].get("_FillValue") == LEFT_OUT and variable.dtype.kind == "f":
            dataset[name] = variable.fillna(LEFT_OUT).astype(np.int32)
            dataset[name].attrs = variable.attrs
            encoding[str(name)] = {**encoding[str(name)]}
    dataset.attrs[MARK] = json.dumps({"kind": "rows", "complete": False})
    dataset.to_zarr(path, mode="w", encoding=encoding, consolidated=False, zarr_format=3)
    zarr.open_group(path, mode="r+").attrs[MARK] = json.dumps({"kind": "rows", "complete": True})


def _as_dataset(values: Any) -> xr.Dataset:
    if isinstance(values, xr.DataArray):
        values = values.to_dataset(name=values.name or "label")
    if not isinstance(values, xr.Dataset):
        if hasattr(values, "to_dask_array"):
            values = values.to_dask_array(lengths=True)
        if isinstance(values, da.Array) and any(np.isnan(n) for n in values.shape):
            values = values.compute_chunk_sizes()
        dims = [f"dim_{i}" for i in range(values.ndim)] if values.ndim > 1 else ["row"]
        values = xr.Dataset({"label": (dims, values)})
    return regular(values)


def regular(dataset: xr.Dataset) -> xr.Dataset:
    """The same with chunks of one size along each dim, as Zarr needs them; already regular ones are left alone."""
    uneven = {}
    for dim, chunks in dataset.chunks.items():
        if len(set(chunks[:-1])) > 1 or chunks[-1] > chunks[0]:
            uneven[dim] = max(chunks)
    dataset = dataset.chunk(uneven) if uneven else dataset
    for variable in dataset.variables.values():
        # How the input was stored is not how labels are.
        variable.encoding = {}
    return dataset


def _encoding(variable: xr.DataArray) -> dict[str, Any]:
    encoding: dict[str, Any] = {"compressors": _codecs()}
    if variable.chunks is not None:
        encoding["chunks"] = tuple(max(1, c[0]) for c in variable.chunks)
    elif variable.ndim:
        encoding["chunks"] = (max(1, min(CHUNK_ROWS, variable.shape[0])), *(max(1, n) for n in variable.shape[1:]))
    if variable.name == "label":
        encoding["_FillValue"] = LEFT_OUT
    return encoding


def store_state(path: Any) -> Mapping[str, Any]:
    """What daskmix wrote about a store: its kind and whether it is complete; empty if it is not one of ours."""
    mark = open_group(path).attrs.get(MARK, {})
    state = json.loads(mark) if isinstance(mark, str) else mark
    return state if isinstance(state, Mapping) else {}


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
        raise IncompleteStoreError(f"{path} was begun and never finished; write it again with overwrite")
