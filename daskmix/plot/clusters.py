"""What clusters are like: how large, how well apart, and what their features are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from daskmix.block import Array
from daskmix.errors import InputError
from daskmix.kernels.reference import squares_observed
from daskmix.plot.canvas import (
    INK,
    NOISE_GREY,
    SMALL,
    Axes,
    canvas,
    caption,
    centres,
    colours,
    feature_numbers,
    fitted,
    label_names,
    real,
)
from daskmix.plot.looks import Look, look, seen

FEW = 12  # bars that have their share written above
ROOM = 60  # letters under an axis
ROW = 0.04  # of the height of a picture: a line of letters
# A look for the sake of its rows: one bin, with limits, as to look for those would take a pass of its own.
SAMPLED: dict[str, Any] = {"sample": 5_000, "bins": 1, "limits": {0: (0.0, 1.0)}}
LAST_NUMBER = re.compile(r"^(.*?)_?([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)$")


def sizes(model: Any, names: Sequence[str] | None = None, axes: Axes = None) -> Axes:
    """The share of all rows, by weight, that each component or cluster has: one bar each, that of noise grey.

    Of a mixture these are its weights, of K-means those of the rows nearest to each centre; no row is read.

    Parameters
    ----------
    model : fitted estimator of daskmix
    names : sequence of str
        Of the labels, in their order; their numbers by default.
    axes : matplotlib Axes
        A new figure by default.

    Raises
    ------
    InputError
        The model is not fitted, or there are not as many names as labels.
    """
    k, _ = fitted(model)
    called = label_names(names, k)
    shades: list[Any] = [*colours(k)]
    mixture = hasattr(model, "means_")
    mass = np.asarray(model.weights_ if mixture else model.cluster_weights_, dtype=np.float64)
    share = mass if mixture else mass / max(float(mass.sum()), np.finfo(float).tiny)
    if hasattr(model, "noise_weight_"):
        share = np.append(share, model.noise_weight_)
        called, shades = [*called, "noise"], [*shades, NOISE_GREY]
    axes = canvas(axes, aspect=1.6)
    at = np.arange(len(share))
    bars = axes.bar(at, share, color=shades, width=0.8)
    many = len(share) > FEW
    if not many:
        axes.bar_label(bars, [f"{100 * s:.3g} %" for s in share], fontsize=SMALL, color=INK, padding=2)
    step = 1 + (len(share) - 1) // 40
    axes.set_xticks(at[::step], called[::step], fontsize=SMALL, **_turned(called[::step]))
    axes.set_xlabel("component" if mixture else "cluster")
    axes.set_ylabel("share of the rows")
    axes.margins(y=0.12)
    return axes


def silhouettes(model: Any, X: Any, names: Sequence[str] | None = None, axes: Axes = None, **options: Any) -> Axes:
    """How much nearer rows are to their own centre than to the next: a bar for each row of a sample, by cluster.

    The simplified silhouette (Hruschka, de Castro & Campello 2004) of a row is (b - a) / b, a and b its distances to
    the two nearest CENTRES: from 0, halfway between two, to 1, at its centre. That of rows instead of centres needs all
    pairs of rows. Each cluster has as much of the height as of the sample; the dashed line is the weighted mean.

    Parameters
    ----------
    model : fitted KMeans or BisectingKMeans
        Of a mixture: `model.to_kmeans()`.
    X : as `fit` takes it, or a Look
        Of which a sample of 5,000 rows is drawn by their index, in one pass (see `look`).
    names : sequence of str
        Of the labels, in their order; their numbers by default.
    axes : matplotlib Axes
        A new figure by default.
    **options
        As `look` takes them: sample_weight, sample_dims, variables, sample.

    Raises
    ------
    InputError
        The model is not fitted, has one cluster alone, or is no K-means; X cannot be used.
    """
    k, _ = fitted(model)
    if not hasattr(model, "cluster_centers_"):
        raise InputError("silhouettes are of distances to centres; draw those of model.to_kmeans()")
    if k < 2:
        raise InputError("a silhouette is of two clusters at least, but the model has one; fit more of them")
    called = label_names(names, k)
    view = seen(model, X, None, options) if isinstance(X, Look) else look(model, X, 0, **SAMPLED | options)
    squares = squares_observed(view.rows.astype(np.float64), np.asarray(model.cluster_centers_, dtype=np.float64))
    two = np.sqrt(np.partition(squares, 1, axis=1)[:, :2])
    value = (two[:, 1] - two[:, 0]) / np.where(two[:, 1] > 0, two[:, 1], 1.0)
    own, axes = axes is None, canvas(axes, aspect=1.3)
    shades, below, n = colours(k), 0.0, len(value)
    gap = 0.01 * n
    ticks: dict[float, str] = {}
    for j in range(k):
        these = np.sort(value[view.labels == j])
        up = below + np.arange(len(these) + 1)
        axes.fill_betweenx(up, 0.0, np.append(these, these[-1:]), step="post", color=shades[j], linewidth=0)
        middle = below + len(these) / 2
        if not ticks or middle - max(ticks) > ROW * n:  # else it would stand on the one before
            ticks[middle] = called[j]
        below += len(these) + gap
    axes.axvline(float(np.average(value, weights=view.weights)), color=INK, linestyle="--", linewidth=1.0)
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=SMALL)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(-gap, below)
    axes.set_xlabel("simplified silhouette, by distances to centres")
    axes.set_ylabel("cluster")
    if own:
        caption(axes, view.told(points=True, features=()))
    return axes


def profiles(
    model: Any,
    statistics: xr.Dataset | None = None,
    features: Any = None,
    *,
    along: Any = None,
    down: bool = True,
    names: Sequence[str] | None = None,
    axes: Axes = None,
) -> Axes:
    """Mean and spread of each feature in each cluster, along an axis such as depth: a line with a band for each.

    The band is one standard deviation to either side: of the component, for a mixture without `statistics`; of the rows
    with the label, with `statistics`. Centres of K-means alone have none. No row is read: `cluster_stats` did.

    Parameters
    ----------
    model : fitted estimator of daskmix
    statistics : xr.Dataset
        `model.cluster_stats(X)`, or `model.cluster_stats(X, other)` for another variable.
    features : names or numbers
        Of the model, or variables of `statistics`, in their order; all by default.
    along : (m,) numbers, or a DataArray with a name and units
        Where each feature stands. By default the numbers that names of features end in ("10.0", "temp_10.0"), else
        features stand side by side under their names.
    down : bool
        Whether this axis points down, as depth does, or up.
    names : sequence of str
        Of the labels, in their order; their numbers by default.
    axes : matplotlib Axes
        A new figure by default.

    Raises
    ------
    InputError, FeatureError
        The model is not fitted; there is no such feature; `along` has another length; or `statistics` are of another
        model.
    """
    k, _ = fitted(model)
    called = label_names(names, k)
    mean, sd, titles, unit = _of_model(model, features) if statistics is None else _of_rows(model, statistics, features)
    where, title, shared = _along(along, titles)
    own, axes = axes is None, canvas(axes, aspect=1.2 if where is None else 0.9, panel=3.8)
    shades = colours(k)
    at = np.arange(len(titles)) if where is None else where
    order = np.argsort(at, kind="stable")
    for j in range(k):
        line = {"color": shades[j], "linewidth": 1.6, "label": called[j], "zorder": 3}
        m, s, p = mean[j][order], sd[j][order], at[order]
        if where is None:
            axes.plot(p, m, marker="o", markersize=4, **line)
            axes.fill_between(p, m - s, m + s, color=shades[j], alpha=0.18, linewidth=0)
        else:
            axes.plot(m, p, **line)
            axes.fill_betweenx(p, m - s, m + s, color=shades[j], alpha=0.18, linewidth=0)
    value = (shared or "value") + (f" ({unit})" if unit else "")
    if where is None:
        axes.set_xticks(at, titles, fontsize=SMALL, **_turned(titles))
        axes.set_xlabel("feature")
        axes.set_ylabel(value)
    else:
        axes.set_ylabel(title)
        axes.set_xlabel(value)
        if down and not axes.yaxis_inverted():
            axes.invert_yaxis()
    kind = "component" if hasattr(model, "means_") else "cluster"
    beside = {} if k <= 5 else {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "ncols": 1 + (k - 1) // 15}
    axes.legend(title=kind, fontsize=SMALL, title_fontsize=SMALL, **beside)
    if own:
        spread = "mean, and one standard deviation" if np.isfinite(sd).any() else "centres"
        caption(axes, spread + (" of the rows" if statistics is not None else ""))
    return axes


def _turned(names: Sequence[str]) -> dict[str, Any]:
    """How names stand under an axis: across where there is room, else slanted."""
    room = len(names) * (max(map(len, names)) + 2) <= ROOM
    return {} if room else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}


def _of_model(model: Any, features: Any) -> tuple[Array, Array, list[str], str]:
    numbers = list(feature_numbers(model, features))
    mean = np.asarray(centres(model))[:, numbers]
    sd = np.full(mean.shape, np.nan)
    if hasattr(model, "means_"):
        dense = model.to_xarray()["covariances"].values
        sd = np.sqrt(np.diagonal(dense, axis1=1, axis2=2))[:, numbers]
        if hasattr(model, "nu_"):  # whose matrices are scales; with two degrees of freedom or fewer it has no variance
            nu = model.nu_[:, None]
            sd = sd * np.sqrt(np.where(nu > 2, nu / np.where(nu > 2, nu - 2, 1.0), np.nan))
    known = getattr(model, "feature_names_in_", None)
    titles = [f"feature {n}" if known is None else str(known[n]) for n in numbers]
    units = getattr(model, "feature_units_", None)
    own = {None if units is None else units[n] for n in numbers}
    return mean, sd, titles, str(own.pop() or "") if len(own) == 1 else ""


def _of_rows(model: Any, found: xr.Dataset, features: Any) -> tuple[Array, Array, list[str], str]:
    if not isinstance(found, xr.Dataset) or "mean" not in found or found.sizes.get("cluster") != len(centres(model)):
        raise InputError("statistics are not of this model; pass what model.cluster_stats(X) returns")
    if features is not None:
        wanted = [features] if isinstance(features, str | int) else list(features)
        known = [str(name) for name in found["variable"].values]
        absent = [name for name in wanted if str(name) not in known]
        if absent:
            raise InputError(f"statistics have no variable {absent[0]!r}; they have {', '.join(known[:8])}")
        found = found.isel(variable=[known.index(str(name)) for name in wanted])
    titles = [str(name) for name in found["variable"].values]
    own = [str(name) for name in getattr(model, "feature_names_in_", ())]
    units = getattr(model, "feature_units_", None)
    theirs = {units[own.index(t)] if units is not None and t in own else None for t in titles}
    unit = str(theirs.pop() or "") if len(theirs) == 1 else ""
    return found["mean"].values, np.sqrt(found["variance"].values), titles, unit


def _along(along: Any, titles: Sequence[str]) -> tuple[Array | None, str, str]:
    """Where features stand, what this axis is called, and what their names share."""
    if along is None:
        # What names share, and the number at the end of each.
        parts = [LAST_NUMBER.match(title) for title in titles]
        shared = {part.group(1).strip() for part in parts if part is not None}
        plain = any(title.startswith("feature ") for title in titles)
        if plain or len(titles) < 2 or None in parts or len(shared) != 1:
            return None, "", ""
        return np.array([float(part.group(2)) for part in parts if part is not None]), "level", shared.pop()
    where = real("along", along)
    if where.shape != (len(titles),):
        raise InputError(f"along has shape {where.shape}, but there are {len(titles)} features: pass a number for each")
    unit = getattr(along, "attrs", {}).get("units")
    name = str(getattr(along, "name", None) or "level")
    return where, f"{name} ({unit})" if unit else name, ""
