"""How a fit converged, and how models of `select` compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from daskmix.block import Array
from daskmix.errors import InputError
from daskmix.plot.canvas import INK, SMALL, Axes, canvas, colours, grid, whole_numbers

LARGER = ("calinski-harabasz", "silhouette")  # criteria of which more is better
DONE = ("converged", "exhausted")
MARKERS = "os^Dv<>"
MANY = 25  # passes, whose marks are small
FEW = 4  # lines whose legend fits beside them


def convergence(fitted: Any, axes: Any = None) -> Array:
    """The objective of a fit after each pass over the rows, and what was left to gain; from `history_`, no row is read.

    The upper panel has the objective as the fit measured it: of each start where the history knows it, else the best.
    The lower one, on a logarithmic scale, how far each start is from the best objective of all passes (relative to it,
    where that is an inertia), and, as crosses, the gap that the algorithm itself estimated after that pass. A start
    that ends in another optimum stays above.

    Parameters
    ----------
    fitted : fitted estimator, Selection or the list `history_` of one
    axes : two matplotlib Axes
        A new figure by default.

    Returns
    -------
    array of two matplotlib Axes

    Raises
    ------
    InputError
        There is no history, or no pass of it measured an objective of the whole fit: those of BisectingKMeans measure
        the splits under way.
    """
    measured = _measured(fitted)
    if axes is not None and np.shape(axes) != (2,):
        raise InputError("convergence takes two panels: pass axes=fig.subplots(2)")
    panels = grid(2, 1, aspect=2.0, panel=2.2)[1][:, 0] if axes is None else np.asarray(axes)
    measure = measured[-1]["measure"]
    at = np.array([record["pass"] for record in measured])
    curves, gaps = _by_start(measured, "objectives"), _by_start(measured, "gaps")
    if np.isnan(curves).all():
        curves = np.array([[record["objective"]] for record in measured], dtype=np.float64)
        gaps = np.full_like(curves, np.nan)
    inertia = measure == "inertia"
    best = float(np.nanmin(curves) if inertia else np.nanmax(curves))
    away = np.abs(curves - best) / (max(abs(best), np.finfo(float).tiny) if inertia else 1.0)
    of = "model" if measured[-1].get("what") == "select" else "start"
    line: dict[str, Any] = {"marker": "o", "linewidth": 1.4, "markersize": 3.5 if len(at) <= MANY else 1.5}
    for j, shade in enumerate(colours(curves.shape[1])):
        name = f"{of} {j}" if curves.shape[1] > 1 else None
        panels[0].plot(at, curves[:, j], color=shade, label=name, **line)
        panels[1].plot(at, _positive(away[:, j]), color=shade, **line)
        marks = {"marker": "x", "linestyle": "none", "markersize": line["markersize"] + 2}
        panels[1].plot(at, _positive(np.abs(gaps[:, j])), color=shade, **marks)
    unit = "inertia" if inertia else f"mean {measure}"
    panels[0].set_ylabel(unit)
    # A legend of many would hide the curves.
    if 1 < curves.shape[1] <= 10:
        panels[0].legend(fontsize=SMALL, loc="best", ncols=2)
    panels[1].set_yscale("log")
    panels[1].set_ylabel("gap, relative" if inertia else "gap")
    keys = [panels[1].plot([], [], color=INK, **look)[0] for look in ({"marker": "o"}, {"marker": "x", "ls": "none"})]
    panels[1].legend(keys, ["to the best of all passes", "estimated by the fit"], fontsize=SMALL, loc="best")
    panels[1].set_xlabel("pass over the rows")
    for panel in panels:
        panel.set_xlim(at.min() - 0.5, at.max() + 0.5)
        whole_numbers(panel.xaxis)
    return panels


def _measured(fitted: Any) -> list[dict[str, Any]]:
    """The records of passes that measured what the last one did: a later stage may measure something else."""
    history = getattr(fitted, "history_", fitted)
    if not isinstance(history, list):
        raise InputError(f"{type(fitted).__name__} has no history_, so it is not fitted; call fit(X) first")
    if any(record.get("what") == "bisecting" for record in history):
        raise InputError("passes of bisecting K-means measure splits under way, which do not converge to one objective")
    measured = [record for record in history if record.get("measure") and record.get("objective") is not None]
    if not measured:
        raise InputError("no pass of this history measured an objective; draw a model that was fitted by passes")
    return [record for record in measured if record["measure"] == measured[-1]["measure"]]


def selection(table: Any, criterion: str, axes: Axes = None) -> Axes:
    """The criterion of the best start of each model over their number of components, from the table of `select`.

    Filled marks are models that were fitted to all rows, hollow ones left before, as they could not win any more; a
    star marks the best. No row is read.

    Parameters
    ----------
    table : xr.Dataset
        `Selection.table_`.
    criterion : str
        What its `score` is.
    axes : matplotlib Axes
        A new figure by default.

    Raises
    ------
    InputError
        It is no table of a selection.
    """
    dims = getattr(table, "dims", ())
    size = next((dim for dim in ("n_components", "n_clusters") if dim in dims), None)
    if size is None or "score" not in table:
        raise InputError("this is not the table of a selection; pass select(...).table_")
    axes = canvas(axes, aspect=1.6)
    scores = table["score"].isel(init=0)
    outcomes = table["outcome"].isel(init=0)
    structures = scores["covariance_type"].values if "covariance_type" in scores.dims else [None]
    shades = colours(len(structures))
    best: tuple[float, Any, Any] | None = None
    more = criterion in LARGER
    for j, name in enumerate(structures):
        own = scores if name is None else scores.sel(covariance_type=name)
        done = np.isin((outcomes if name is None else outcomes.sel(covariance_type=name)).values, DONE)
        at, values = table[size].values, np.where(np.isfinite(own.values), own.values, np.nan)
        marker = MARKERS[j % len(MARKERS)]
        axes.plot(at, values, color=shades[j], marker=marker, markerfacecolor="none", label=name)
        axes.scatter(at[done], values[done], color=shades[j], marker=marker, zorder=3)
        for x, y in zip(at[done], values[done], strict=True):
            if np.isfinite(y) and (best is None or (y > best[0] if more else y < best[0])):
                best = (float(y), x, name)
    if best is not None:
        axes.scatter([best[1]], [best[0]], marker="*", s=260, facecolor="#ffffff", edgecolor=INK, zorder=4)
        said = f"best: {best[1]}" + ("" if best[2] is None else f", {best[2]}")
        axes.annotate(
            said, (best[1], best[0]), xytext=(0, 14 if more else -20), textcoords="offset points", ha="center",
            fontsize=SMALL,
        )  # fmt: skip
        axes.margins(y=0.15)
    axes.set_xlabel(size)
    axes.set_ylabel(f"{criterion} ({'larger' if more else 'smaller'} is better)")
    whole_numbers(axes.xaxis)
    if len(structures) > 1 or structures[0] is not None:
        beside = {} if len(structures) <= FEW else {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
        axes.legend(title="covariance_type", fontsize=SMALL, title_fontsize=SMALL, **beside)
    return axes


def _by_start(measured: Sequence[dict[str, Any]], name: str) -> Array:
    """(passes, starts), NaN where a start was done, or nothing is known."""
    listed = [record.get(name) or [] for record in measured]
    out = np.full((len(listed), max(1, *map(len, listed)) if listed else 1), np.nan)
    for row, values in zip(out, listed, strict=True):
        row[: len(values)] = [np.nan if value is None else value for value in values]
    return out


def _positive(values: Array) -> Array:
    """What a logarithmic scale can show."""
    return np.where(values > 0, values, np.nan)
