"""What a stored model consists of: nothing that a file says is believed before it was compared with this.

Arrays are decoded here, into as much memory as their shape asks for, which the shapes of all others confirm.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from numbers import Integral, Real
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import zarr

from daskmix.errors import BadChunkError, SchemaError
from daskmix.vault import Vault

# What a fitted model consists of, beside its parameters.
STATE = {
    "KMeans": (
        "cluster_centers_", "cluster_weights_", "inertia_", "n_iter_", "converged_", "gap_estimate_",
        "_feature_weights",
    ),
    "BisectingKMeans": (
        "cluster_centers_", "cluster_weights_", "inertia_", "n_iter_", "converged_", "gap_estimate_", "tree_centers_",
        "tree_children_",
    ),
    "GaussianMixture": (
        "weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_", "noise_weight_", "noise_box_",
        "nu_", "_nu_estimated", "_n_free",
        "lower_bound_", "converged_", "n_iter_", "gap_estimate_", "_mass", "_certainty", "_smoothing",
    ),
    "BayesianGaussianMixture": (
        "weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_",
        "weight_concentration_", "mean_precision_", "degrees_of_freedom_", "weight_concentration_prior_",
        "mean_precision_prior_", "mean_prior_", "degrees_of_freedom_prior_", "covariance_prior_",
        "lower_bound_", "converged_", "n_iter_",
    ),
}  # fmt: skip
COMMON = ("n_features_in_", "feature_names_in_", "feature_units_", "history_", "n_passes_", "bytes_read_", "seed_")
NOT_STORED = ("run", "random_state")
# What a model may lack, as not every fit has it, or older versions did not.
MAY_LACK = {
    "_feature_weights", "noise_weight_", "noise_box_", "nu_", "_nu_estimated", "_n_free", "_mass", "_certainty",
    "_smoothing", "gap_estimate_", "feature_names_in_", "feature_units_",
}  # fmt: skip

# Shapes: k components or clusters, d features, s splits.
SHAPES = {
    "cluster_centers_": "kd", "cluster_weights_": "k", "_feature_weights": "kd", "tree_centers_": "s2d",
    "tree_children_": "s2", "weights_": "k", "means_": "kd", "noise_box_": "2d", "nu_": "k", "_smoothing": "d",
    "mean_precision_": "k", "mean_prior_": "d",
}  # fmt: skip
# Those that depend on the kind of covariance: of the covariances, of the degrees of freedom, and of the prior.
OF_KIND = {"full": ("kdd", "k", "dd"), "tied": ("dd", "", "dd"), "diag": ("kd", "k", "d"), "spherical": ("k", "k", "")}
KINDS = {
    **{kind: kind for kind in OF_KIND},
    "EEE": "tied",
    **dict.fromkeys(("EII", "VII"), "spherical"),
    **dict.fromkeys(("EEI", "VEI", "EVI", "VVI"), "diag"),
    **dict.fromkeys(("VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV"), "full"),
}
OF_CONCENTRATION = {"dirichlet_process": "2k", "dirichlet_distribution": "k"}
INTEGERS = ("tree_children_",)
ABOVE_ZERO = {  # of matrices the diagonals
    "covariances_", "precisions_", "precisions_cholesky_", "nu_", "mean_precision_", "degrees_of_freedom_",
    "weight_concentration_",
}  # fmt: skip

CODECS = ("bytes", "zstd", "crc32c")
SMALL = 1 << 26  # bytes of an array that may be all fill value, and not stored
MOST_UNPACKED = 1 << 12  # bytes that one stored byte may stand for, in larger ones

Sections = Mapping[str, Mapping[str, Any]]


# --- bytes ------------------------------------------------------------------------------------------------------------


def digest(kind: str, plain: Any, arrays: Mapping[str, np.ndarray]) -> str:
    """A checksum of all that a model is made of, whatever it is stored as."""
    numbers = {name: [a.dtype.str, list(a.shape), _sha256(a.tobytes())] for name, a in arrays.items()}
    told = {"kind": kind, "state": plain, "arrays": numbers}
    return _sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def as_stored(value: np.ndarray) -> np.ndarray:
    """The same numbers in the order of bytes that they are stored in."""
    return np.ascontiguousarray(value, value.dtype.newbyteorder("<")).reshape(value.shape)


def numbers(array: zarr.Array, objects: Vault) -> np.ndarray:
    """The values of an array of a model, which is one chunk, compressed and checked.

    Raises
    ------
    SchemaError
        It is stored in another way.
    BadChunkError
        Its bytes are not those that were written.
    """
    told, shape = array.metadata.to_dict(), tuple(array.shape)
    named: Any = told.get("codecs", ())
    chunks = tuple(max(1, n) for n in shape)
    if array.dtype.kind not in "fiub" or tuple(array.chunks) != chunks or tuple(c["name"] for c in named) != CODECS:
        raise SchemaError("is not stored as daskmix stores the arrays of a model")
    dtype = array.dtype.newbyteorder(">" if named[0].get("configuration", {}).get("endian") == "big" else "<")
    nbytes = prod(shape) * dtype.itemsize
    try:
        stored = objects.get("/".join(filter(None, (array.path, array.metadata.encode_chunk_key((0,) * len(shape))))))
    except FileNotFoundError:
        if nbytes > SMALL:
            raise BadChunkError(f"has shape {shape}, and no chunk") from None
        return np.full(shape, array.fill_value, dtype)
    if nbytes > max(SMALL, MOST_UNPACKED * len(stored)):
        raise BadChunkError(f"has shape {shape}, and a chunk of {len(stored)} bytes")
    packed, checksum = stored[:-4], int.from_bytes(stored[-4:], "little")
    if len(stored) < 4 or google_crc32c.value(packed) != checksum:
        raise BadChunkError("does not match its checksum")
    unpacked = np.zeros(nbytes, np.uint8)  # what holds more is refused, whatever its shape says
    numcodecs.Zstd().decode(packed, unpacked)
    return unpacked.view(dtype).reshape(shape)


# --- values -----------------------------------------------------------------------------------------------------------


def checked(kind: str, defaults: Mapping[str, Any], sections: Sections) -> None:
    """Whether these can be the parameters and the state of a model of this kind.

    Raises
    ------
    SchemaError
        With the name of what cannot be.
    """
    params, fitted = sections["params"], sections["fitted"]
    for name, value in params.items():
        _refuse_unless(name in defaults, "parameter", name, "is not known")
        _refuse_unless(_may_stand_for(defaults[name], value), "parameter", name, f"cannot be {_shown(value)}")
    known = (*STATE[kind], *COMMON)
    for name in fitted:
        _refuse_unless(name in known, "attribute", name, "is not known")
    for name in known:
        _refuse_unless(name in fitted or name in MAY_LACK, "attribute", name, "is not there")
    _check_sizes(kind, dict(defaults) | dict(params), fitted)
    for name in known:
        if name in PLAIN and name in fitted:
            value = fitted[name]
            _refuse_unless(
                PLAIN[name](value, fitted["n_features_in_"]), "attribute", name, f"cannot be {_shown(value)}"
            )


def _refuse_unless(holds: bool, what: str, name: str, why: str) -> None:
    if not holds:
        raise SchemaError(f"{what} {_shown(name)} {why}")


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    said = repr(value)
    return said if len(said) <= 60 else f"{said[:56]} ..."


def _may_stand_for(default: Any, value: Any) -> bool:
    """Whether a parameter with this default may have this value; what a fit makes of it, a fit will check."""
    if isinstance(default, bool | int | float):
        kind = Real if isinstance(default, float) else Integral
        several = (
            value if isinstance(value, list | np.ndarray) and kind is Real else [value]
        )  # a temperature for each pass
        return all(isinstance(one, kind) for one in several)
    if isinstance(default, str):
        return value is not None and not isinstance(value, Mapping | bool)
    return True


@dataclass
class _Sizes:
    """What the letters of shapes stand for, as far as it was met."""

    of: dict[str, int]

    def fit(self, letters: str, shape: tuple[int, ...]) -> bool:
        if len(letters) != len(shape):
            return False
        each = zip(letters, shape, strict=True)
        return all(int(x) == n if x.isdigit() else self.of.setdefault(x, n) == n for x, n in each)


def shapes(kind: str, params: Mapping[str, Any]) -> dict[str, str]:
    """The shape of each array that a model with these parameters may have, in letters; "" where it is a number."""
    found = dict(SHAPES)
    if "covariance_type" in params:
        name = params["covariance_type"]
        kind_of = KINDS.get(name) if isinstance(name, str) else None
        if name == "fixed":
            kind_of = _kind_of_given(params.get("covariance_init"))
        _refuse_unless(kind_of is not None, "parameter", "covariance_type", f"cannot be {_shown(name)}")
        covariance, freedom, prior = OF_KIND[str(kind_of)]
        found |= dict.fromkeys(("covariances_", "precisions_", "precisions_cholesky_"), covariance)
        found |= {"degrees_of_freedom_": freedom, "covariance_prior_": prior}
    if "weight_concentration_prior_type" in params:
        name = params["weight_concentration_prior_type"]
        known = isinstance(name, str) and name in OF_CONCENTRATION
        _refuse_unless(known, "parameter", "weight_concentration_prior_type", f"cannot be {_shown(name)}")
        found["weight_concentration_"] = OF_CONCENTRATION[name]
    return {name: letters for name, letters in found.items() if name in STATE[kind]}


def _kind_of_given(covariance: Any) -> str | None:
    """The kind that a covariance is of which was given, None if it is none."""
    try:
        value = np.asarray(covariance)
    except ValueError:  # lists of different lengths
        return None
    plain = value.dtype.kind in "fiu"
    return {0: "spherical", 1: "diag", 2: "tied"}.get(value.ndim) if plain else None


def _check_sizes(kind: str, params: Mapping[str, Any], fitted: Mapping[str, Any]) -> None:
    d = fitted["n_features_in_"]
    _refuse_unless(_count(d) and d > 0, "attribute", "n_features_in_", f"cannot be {_shown(d)}")
    sizes = _Sizes({"d": int(d)})
    for name, letters in shapes(kind, params).items():
        if name not in fitted:
            continue
        value = fitted[name]
        if not letters:
            _refuse_unless(_real(value), "attribute", name, f"cannot be {_shown(value)}")
            continue
        kinds = "iu" if name in INTEGERS else "f"
        fits = isinstance(value, np.ndarray) and value.dtype.kind in kinds and sizes.fit(letters, value.shape)
        _refuse_unless(fits, "attribute", name, f"cannot be {_shown(value)}; it is told by {letters}, of {sizes.of}")
        if name in ABOVE_ZERO:  # kernels divide by them
            values = np.diagonal(value, axis1=-2, axis2=-1) if letters.endswith("dd") else value
            _refuse_unless(bool(np.all(values > 0)), "attribute", name, "cannot be 0 or less")
    weights = fitted.get("weights_", np.ones(1))
    _refuse_unless(bool(np.all(weights >= 0) and weights.sum() > 0), "attribute", "weights_", "are no weights")
    both = ("noise_box_" in fitted) == ("noise_weight_" in fitted)
    _refuse_unless(both, "attribute", "noise_box_", "is there without noise_weight_, or the other way round")
    _refuse_unless(sizes.of["k"] > 0, "the number of", "clusters or components", "cannot be 0")


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _names(value: Any, d: int) -> bool:
    return isinstance(value, list) and len(value) == d and all(isinstance(name, str) for name in value)


def _units(value: Any, d: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == d
        and all(isinstance(unit, str | int | float | None) for unit in value)
    )


def _records(value: Any) -> bool:
    """As `history_` has them: with what others look up in them."""
    return isinstance(value, list) and all(
        isinstance(record, dict)
        and _count(record.get("rows"))
        and isinstance(record.get("what"), str)
        and isinstance(record.get("fingerprint", {}), dict)
        for record in value
    )


# Values that are no arrays, given the number of features.
PLAIN: dict[str, Callable[[Any, int], bool]] = {
    **dict.fromkeys(("n_iter_", "n_passes_", "bytes_read_", "seed_", "_n_free"), lambda value, d: _count(value)),
    **dict.fromkeys(("converged_", "_nu_estimated"), lambda value, d: isinstance(value, bool)),
    **dict.fromkeys(
        (
            "inertia_", "gap_estimate_", "lower_bound_", "_mass", "_certainty", "noise_weight_",
            "weight_concentration_prior_", "mean_precision_prior_", "degrees_of_freedom_prior_",
        ),
        lambda value, d: _real(value),
    ),
    "feature_names_in_": _names,
    "feature_units_": _units,
    "history_": lambda value, d: _records(value),
}  # fmt: skip
