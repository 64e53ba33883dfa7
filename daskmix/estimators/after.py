"""What can be asked of clusters after the fit, with another look at the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from daskmix.block import Array, Missing
from daskmix.describing import Describe, Described
from daskmix.errors import InputError
from daskmix.estimators.others import of_same_rows
from daskmix.rows import Rows, beside, side_by_side
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
    opened = opened.in_pieces(sample_dims).lazy if isinstance(opened, Stored) else opened
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
    with face._asking(rows) as fit:
        found = fit.ask(asked, "statistics")
    return _dataset(found, names, at)


def _with(rows: Rows, X: Source, other: Any, sample_dims: Any) -> tuple[Rows, list[str]]:
    """Rows with other variables beside their features, and the names of these."""
    found, names = of_same_rows("other", other, rows, X, sample_dims)
    return (side_by_side if isinstance(found, Rows) else beside)(rows, found), names


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
