"""What a fit's result depends on, in a few words each: a checkpoint is gone on with only where all are the same."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
from dask.base import tokenize
from sklearn.base import BaseEstimator

from daskmix.checkpoint import Provenance
from daskmix.errors import CheckpointWarning
from daskmix.hooks import fingerprint
from daskmix.objects import listing
from daskmix.sources.zarr import Stored

if TYPE_CHECKING:
    from daskmix.estimators.base import Estimator

HOW = ("run", "verbose")  # parameters that say how a fit runs
APART = ("history_", "bytes_read_")  # of a fitted model: they say how it was fitted
DECISIVE = ("daskmix", "numpy", "scipy", "numba", "float")  # of the fingerprint: another one may give another result
Facts = dict[str, Any]
Identity = dict[str, Facts]


def identity(
    face: Estimator,
    X: Any,
    weight: Any,
    sample_dims: Any,
    y: Any = None,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Identity:
    """Of a fit of this estimator to X, opened: versions, parameters (`more` among them), rows, weights and labels."""
    params = {name: _told(value) for name, value in face.get_params(deep=False).items() if name not in HOW}
    if not isinstance(face.random_state, Integral):
        params["random_state"] = None  # the checkpoint has what was drawn
    if face._warm():
        params["start"] = tokenize(face.to_xarray())
    dims = None if sample_dims is None else list(map(str, sample_dims))
    return {
        "version of": {name: fingerprint()[name] for name in DECISIVE},
        "parameter": {"model": type(face).__name__, **params, **{name: _told(value) for name, value in more.items()}},
        "input's": of_rows(X) | {"sample_dims": dims},
        "sample_weight's": of_rows(weight),
        "y's": of_rows(y),
    }


def provenance(same: Identity, seed: int | None = None) -> Provenance:
    """Of what is made by a fit that is known by this, and this seed."""
    return Provenance(hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest(), seed)


def provenance_of_answers(face: Estimator, X: Any, sample_dims: Any, asked: Sequence[str]) -> Provenance:
    """Of the answers of a fitted model to these questions about X, opened."""
    fitted = {name: value for name, value in vars(face).items() if name.endswith("_") and name not in APART}
    facts = {
        "model": tokenize(fitted),
        "missing": face.missing,
        "sample_dims": _told(sample_dims),
        "asked": list(asked),
    }
    return provenance({"answers": facts, "input's": of_rows(X)})


def of_rows(x: Any) -> Facts:
    """What can be said of rows without reading them; of an array in memory a hash of its values."""
    if x is None:
        return {}
    if isinstance(x, Stored):
        # Without consolidated metadata variables come in any order.
        return {"kind": type(x.lazy).__name__, "variables": list(map(str, x.arrays)), **_sizes(x.lazy), **_of_stored(x)}
    token = tokenize(x)
    try:
        with dask.config.set({"tokenize.ensure-deterministic": True}):
            tokenize(x)
    except RuntimeError:
        warnings.warn(
            "Dask cannot tell whether these rows will be the same in another process, so that only this one can go on "
            "from the checkpoint; pass the path of a store",
            CheckpointWarning,
            stacklevel=5,
        )
    return {"kind": type(x).__name__, **_sizes(x), "token": token}


def _sizes(x: Any) -> Facts:
    """Shape, type and chunks."""
    if hasattr(x, "sizes"):
        return {"shape": {str(dim): size for dim, size in x.sizes.items()}}
    facts = {name: getattr(x, name, None) for name in ("shape", "dtype")}
    return {name: str(value) for name, value in facts.items() if value is not None}


def _of_stored(x: Stored) -> Facts:
    """Every object of the arrays that are read: its name, size and etag (or time)."""
    facts: Facts = {}
    for name, array in x.arrays.items():
        name = str(name) or "the array"
        try:
            listed = listing(array.stored.store, array.stored.path)
            found = sorted((key, stat.size, stat.tag) for key, stat in listed.items())
        except NotImplementedError:
            facts[f"objects of {name}"] = "cannot be listed"
            continue
        digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
        facts[f"objects of {name}"] = (
            f"{len(found)} of {sum(size or 0 for _, size, _ in found)} bytes, digest {digest[:16]}"
        )
    return facts


def _told(value: Any) -> Any:
    """A parameter as JSON holds it; what is no plain value as a token."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, BaseEstimator):
        return tokenize(vars(value).get("cluster_centers_", vars(value).get("means_")))
    return tokenize(value)
