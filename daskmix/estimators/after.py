"""What can be asked of clusters after the fit, with another look at the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from daskmix.block import Array, Missing, unmasked
from daskmix.describing import Describe, Described
from daskmix.errors import InputError, InputTypeError
from daskmix.fitting import Fit
from daskmix.rows import Rows, beside, side_by_side
from daskmix.sources.dask import is_dask_frame, rows_from_dask_array
from daskmix.sources.labelled import rows_from_labelled, take_apart
from daskmix.sources.zarr import Stored

if TYPE_CHECKING:
    from daskmix.estimators.base import Estimator, Source

KEPT = 10_000  # rows of each cluster, for quantiles


def cluster_stats(
    face: Estimator,
    X: Source,
    other: Any,
    weight: Any,
    sample_dims: Any,
    variables: Any,
    quantiles: Sequence[float],
) -> xr.Dataset:
    """What `Estimator.cluster_stats` says."""
    check_is_fitted(face)
    at = np.asarray(quantiles, dtype=np.float64)
    if at.ndim != 1 or not ((at >= 0) & (at <= 1)).all():
        raise InputError(f"quantiles={quantiles!r} must be shares between 0 and 1")
    opened = face._opened(X, variables)
    opened = opened.lazy if isinstance(opened, Stored) else opened
    rows = face._rows(opened, weight, sample_dims, reset=False)
    d = rows.d
    if other is None:
        start, names = 0, [str(name) for name in getattr(face, "feature_names_in_", range(d))]
    else:
        start, (rows, names) = d, _with(rows, opened, other, sample_dims)
    rows = replace(rows, missing=Missing.observe)
    labels, k = face._label_function()
    kept = KEPT if at.size else 1  # no sample is of no rows
    asked = Describe(labels, k, d, start, rows.d - start, Missing(face.missing), kept, getattr(face, "seed_", 0))
    with Fit(rows) as fit:
        found = fit.ask(asked, "statistics")
    return _dataset(found, names, at)


def _with(rows: Rows, X: Source, other: Any, sample_dims: Any) -> tuple[Rows, list[str]]:
    """Rows with other variables beside their features, and the names of these."""
    if isinstance(other, xr.Dataset | xr.DataArray):
        return _with_labelled(rows, X, other, sample_dims)
    if dask.is_dask_collection(other) and hasattr(other, "to_frame"):
        other = other.to_frame()
    if is_dask_frame(other):
        names = [str(name) for name in other.columns]
        return side_by_side(rows, rows_from_dask_array(other.to_dask_array(), None, Missing.observe)), names
    if isinstance(other, da.Array):
        other = other[:, None] if other.ndim == getattr(X, "ndim", 2) - 1 else other
        lazy = rows_from_dask_array(_chunked_like(other, X), None, Missing.observe)
        return side_by_side(rows, lazy), [str(v) for v in range(lazy.d)]
    columns = getattr(other, "columns", None)
    values, total = _numbers(unmasked(np.asarray(other))), rows.counted("other")
    axes = getattr(X, "ndim", 2) - 1
    if values.size == 0 or np.prod(values.shape[:axes]) != total:
        raise InputError(f"other has shape {values.shape}, but X has {total} rows")
    values = values.reshape(total, -1)
    return beside(rows, values), [str(v) for v in (range(values.shape[1]) if columns is None else columns)]


def _with_labelled(rows: Rows, X: Source, other: Any, sample_dims: Any) -> tuple[Rows, list[str]]:
    if not isinstance(X, xr.Dataset | xr.DataArray):
        raise InputError(f"other is an xarray object, but X is a {type(X).__name__}; pass both of one kind")
    own = take_apart(X, sample_dims)
    given = other.to_dataset(name=other.name or "other") if isinstance(other, xr.DataArray) else other
    for dim in own.sample_dims:
        if dim not in given.dims or given.sizes[dim] != own.variables[0].sizes[dim]:
            raise InputError(
                f"other has sizes {dict(given.sizes)}, but X has {own.variables[0].sizes[dim]} along {dim!r}"
            )
        here, there = own.variables[0].coords.get(dim), given.coords.get(dim)
        if here is not None and there is not None and not here.equals(there):
            raise InputError(f"other has other values of {dim!r} than X; select or sort one like the other")
    if own.lazy:
        sizes = own.variables[0].chunksizes
        parts = take_apart(given.chunk({dim: sizes[dim] for dim in own.sample_dims}), own.sample_dims)
        return side_by_side(rows, rows_from_labelled(parts, None, Missing.observe)), list(parts.names)
    parts = take_apart(given.compute(), own.sample_dims)
    columns = [_numbers(v.values).reshape(rows.counted("other"), -1) for v in parts.variables]
    return beside(rows, np.concatenate(columns, axis=1)), list(parts.names)


def _numbers(values: Array) -> Array:
    if values.dtype.kind not in "fiub":
        raise InputTypeError(f"other is of type {values.dtype}, not a real number; convert it first")
    return values.astype(np.float64)


def _chunked_like(other: da.Array, X: Source) -> da.Array:
    if not isinstance(X, da.Array) or np.isnan(X.shape[0]):
        return other
    if other.shape[:-1] != X.shape[:-1]:
        raise InputError(f"other has {other.shape[:-1]} rows but X has {X.shape[:-1]}")
    return other.rechunk((*X.chunks[:-1], -1))


def _dataset(found: Described, names: Sequence[str], at: Array) -> xr.Dataset:
    """Over cluster, variable and quantile; NaN where a cluster has no such value."""
    each = {name: np.array([getattr(s, name) for s in found.summaries]) for name in ("seen", "mean", "scatter")}
    some = each["seen"] > 0

    def where(values: Array) -> Array:
        return np.where(some, values, np.nan)

    over = ("cluster", "variable")
    variance = where(each["scatter"] / np.where(some, each["seen"], 1.0))
    return xr.Dataset(
        {
            "count": ("cluster", np.array([s.rows for s in found.summaries])),
            "weight": (over, each["seen"]),
            "mean": (over, where(each["mean"])),
            "variance": (over, variance),
            "min": (over, where(np.array([s.low for s in found.summaries]))),
            "max": (over, where(np.array([s.high for s in found.summaries]))),
            "quantiles": ((*over, "quantile"), found.quantiles(at)),
        },
        coords={"cluster": np.arange(len(found.summaries)), "variable": list(names), "quantile": at},
        attrs={"quantiles_of_rows": KEPT},
    )
