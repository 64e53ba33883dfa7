"""xarray objects as rows: which dims are sampled, what the features are called, and weights along some dims."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import product as cartesian
from math import prod
from typing import Any

import dask.array as da
import xarray as xr

from daskmix.block import Array, Missing
from daskmix.errors import InputError, InputTypeError
from daskmix.rows import Rows, from_memory, in_memory_weights
from daskmix.sources.dask import from_dask


@dataclass(frozen=True)
class Labelled:
    """xarray variables taken apart: sampled axes first, then the features."""

    variables: tuple[xr.DataArray, ...]  # each with the sampled dims first
    sample_dims: tuple[Hashable, ...]
    names: tuple[str, ...]
    units: tuple[str | None, ...] | None

    @property
    def label(self) -> str:
        """Whose chunks these are, for the messages of errors."""
        names = ", ".join(str(v.name) for v in self.variables if v.name is not None)
        return f" of {names}" if names else ""

    @property
    def lazy(self) -> bool:
        return any(v.chunks is not None for v in self.variables)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.variables[0].sizes[dim] for dim in self.sample_dims)


def chosen(x: Any, variables: Sequence[str]) -> Any:
    """Some variables of a Dataset; a single one as a DataArray, whose last dim holds the features."""
    return x[list(variables) if len(variables) > 1 else variables[0]]


def take_apart(x: xr.Dataset | xr.DataArray, sample_dims: Sequence[Hashable] | None) -> Labelled:
    """Which dims are sampled and what the features are called."""
    if isinstance(sample_dims, str):
        sample_dims = (sample_dims,)
    variables = [x] if isinstance(x, xr.DataArray) else list(x.data_vars.values())
    if not variables:
        raise InputError("the Dataset has no data variables; nothing to cluster")
    if sample_dims is None:
        if isinstance(x, xr.DataArray):
            if x.ndim < 2:
                raise InputError(
                    f"a DataArray with dims {x.dims} has no feature dim; pass a Dataset, or sample_dims={x.dims} "
                    "if every value is a row of one feature"
                )
            sample_dims = x.dims[:-1]
        else:
            shared = set.intersection(*(set(v.dims) for v in variables))
            sample_dims = tuple(dim for dim in variables[0].dims if dim in shared)
    sample_dims = tuple(sample_dims)
    if not sample_dims:
        described = ", ".join(f"{v.name} {v.dims}" for v in variables[:8])
        raise InputError(f"the variables have no dim in common: {described}; name those that are features: variables=")
    names: list[str] = []
    units: list[str | None] = []
    ordered = []
    for variable in variables:
        absent = [dim for dim in sample_dims if dim not in variable.dims]
        if absent:
            raise InputError(
                f"variable {variable.name!r} has dims {variable.dims}, without {absent[0]!r}, which sample_dims names; "
                "drop the variable or leave that dim out of sample_dims"
            )
        if variable.dtype.kind in "Mm":
            raise InputTypeError(
                f"variable {variable.name!r} holds datetimes ({variable.dtype}), which are no features; "
                "convert them to numbers first"
            )
        variable = variable.transpose(*sample_dims, ...)
        own = _feature_names(variable, sample_dims, alone=isinstance(x, xr.DataArray))
        names += own
        units += [variable.attrs.get("units")] * len(own)
        ordered.append(variable)
    if any(v.chunks is not None for v in ordered):
        unified: Any = xr.unify_chunks(*(v.chunk() if v.chunks is None else v for v in ordered))
        ordered = list(unified)
    named = tuple(units) if any(u is not None for u in units) else None
    return Labelled(tuple(ordered), sample_dims, tuple(names), named)


def _feature_names(variable: xr.DataArray, sample_dims: Sequence[Hashable], alone: bool) -> list[str]:
    dims = [dim for dim in variable.dims if dim not in sample_dims]
    prefix = [] if alone and dims else [str(variable.name)]
    labels = [[str(v) for v in variable[dim].values] for dim in dims]
    return ["_".join([*prefix, *combination]) for combination in cartesian(*labels)]


def rows_from_labelled(parts: Labelled, weight: Any, missing: Missing) -> Rows:
    """Rows of xarray variables, lazily where they are lazy."""
    axes = len(parts.sample_dims)
    weight = labelled_weight(weight, parts)
    if not parts.lazy:
        return from_memory([v.values for v in parts.variables], axes, weight, missing)
    return from_dask([v.data for v in parts.variables], axes, weight, missing, parts.label)


def labelled_weight(weight: Any, parts: Labelled) -> da.Array | Array | None:
    """Weights with one axis per sampled dim, of length one where they do not depend on it; lazy ones spelled out."""
    if weight is None:
        return None
    if not isinstance(weight, xr.DataArray):
        weight = in_memory_weights(weight)
        if weight.shape not in (parts.shape, (prod(parts.shape),)):
            raise InputError(
                f"sample_weight has shape {weight.shape} but the sampled dims {parts.sample_dims} have {parts.shape}; "
                "pass a DataArray over some of these dims"
            )
        return weight.reshape(parts.shape)
    foreign = [dim for dim in weight.dims if dim not in parts.sample_dims]
    if foreign:
        raise InputError(f"sample_weight has dim {foreign[0]!r}, which is not sampled; {parts.sample_dims} are")
    first = parts.variables[0]
    for dim in weight.dims:
        if weight.sizes[dim] != first.sizes[dim]:
            raise InputError(f"sample_weight has {weight.sizes[dim]} values along {dim!r} but X has {first.sizes[dim]}")
        if dim in weight.indexes and dim in first.indexes and not weight.indexes[dim].equals(first.indexes[dim]):
            raise InputError(
                f"sample_weight has other coordinates along {dim!r} than X; align them first, e.g. "
                f"sample_weight.reindex({dim}=X[{dim!r}])"
            )
    chunks = dict(zip(first.dims, first.chunks or (), strict=False))
    if weight.chunks is not None and parts.lazy:
        spelled = weight.expand_dims({dim: first.sizes[dim] for dim in parts.sample_dims if dim not in weight.dims})
        return spelled.transpose(*parts.sample_dims).chunk({dim: chunks[dim] for dim in parts.sample_dims}).data
    values = in_memory_weights(weight.transpose(*(dim for dim in parts.sample_dims if dim in weight.dims)).values)
    return values.reshape([weight.sizes.get(dim, 1) for dim in parts.sample_dims])
