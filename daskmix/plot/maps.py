"""Labels and uncertainty on the grid that they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from daskmix.block import Array
from daskmix.errors import InputError, whole
from daskmix.plot.canvas import NOISE_GREY, SMALL, Axes, canvas, caption, colours, label_names, real

FINEST = 2_000  # points along an axis: more than any figure has
MOST_NAMES = 30  # in a colour bar


def label_map(labels: Any, names: Sequence[str] | None = None, axes: Axes = None, *, k: int | None = None) -> Axes:
    """Labels on a grid, with a colour bar of their names; what has no label is blank, noise (-1) grey.

    A label's colour depends on its number alone, so that maps of different times, or of parts, agree. Of more than
    2,000 points along an axis every n-th is drawn (the caption says which): lazy labels are never all in memory.

    Parameters
    ----------
    labels : 2-d DataArray, or array (y, x)
        As `predict` returns them: NaN or -2 where there is none. Coordinates, with their units, stand on the axes; one
        with the attribute positive="down" points down.
    names : sequence of str
        Of the labels, in their order; their numbers by default.
    axes : matplotlib Axes
        A new figure by default.
    k : int
        How many labels there are; what `predict` says of it by default, else as many as are seen.

    Raises
    ------
    InputError
        Labels are not over two dims, no labels, or more than there are names.
    """
    grid, told = _thinned(labels)
    values = real("labels", grid.values)
    found = values[np.isfinite(values)]
    if found.size and (found != np.rint(found)).any():
        raise InputError("labels must be whole numbers; pass what predict(X) returns, or draw an uncertainty_map")
    known = next((labels.attrs[a] for a in ("n_components", "n_clusters") if a in getattr(labels, "attrs", {})), None)
    most = int(found.max(initial=-1)) + 1
    if k is None:
        k = most if known is None else int(known)
    whole("k", k, 0)
    if most > k:
        raise InputError(f"label {most - 1} is none of k={k}; pass as many as there are labels")
    called, noise = label_names(names, k), bool((found == -1).any())
    shades: list[Any] = [*colours(k)]
    first = 0
    if noise or not k:
        shades, called, first = [NOISE_GREY, *shades], ["noise", *called], -1
    axes = canvas(axes, aspect=1.5)
    from matplotlib.colors import BoundaryNorm, ListedColormap  # which is there, now that there are axes

    shown = np.ma.masked_where(~np.isfinite(values) | (values < -1), values)
    norm = BoundaryNorm(np.arange(first, k + 1) - 0.5, len(shades))
    drawn = _mesh(axes, grid, shown, cmap=ListedColormap(shades), norm=norm)
    step = 1 + (len(called) - 1) // MOST_NAMES
    bar = axes.figure.colorbar(drawn, ax=axes, ticks=np.arange(first, k)[::step])
    bar.ax.set_yticklabels(called[::step], fontsize=SMALL)
    bar.ax.tick_params(length=0)
    bar.set_label(str(getattr(labels, "attrs", {}).get("long_name", "label")))
    if told:
        caption(axes, told)
    return axes


def uncertainty_map(values: Any, axes: Axes = None) -> Axes:
    """One minus the largest probability of each point of a grid; blank where there is none.

    Dark is sure. The scale ends at one half, a tie of two components; beyond are ties of more, and rare.

    Parameters
    ----------
    values : 2-d DataArray, or array (y, x)
        As `uncertainty` returns them; drawn as `label_map` draws labels.
    axes : matplotlib Axes
        A new figure by default.

    Raises
    ------
    InputError
        Values are not over two dims, or not between 0 and 1.
    """
    grid, told = _thinned(values)
    shown = np.ma.masked_invalid(real("uncertainty", grid.values))
    if shown.count() and not (shown.min() >= 0 and shown.max() <= 1):
        raise InputError("uncertainty is between 0 and 1; pass what uncertainty(X) returns")
    axes = canvas(axes, aspect=1.5)
    drawn = _mesh(axes, grid, shown, cmap="magma", vmin=0.0, vmax=0.5)
    axes.figure.colorbar(drawn, ax=axes, extend="max", label="1 - largest probability")
    if told:
        caption(axes, told)
    return axes


def _thinned(values: Any) -> tuple[xr.DataArray, str]:
    """At most so many points along each axis, in memory, and what was left out."""
    values = np.asarray(values) if isinstance(values, list) else values
    if np.ndim(values) != 2:
        dims = getattr(values, "dims", np.shape(values))
        raise InputError(f"a map is of two dims, but there are {dims}; choose some, e.g. labels.isel(time=0)")
    found = values if isinstance(values, xr.DataArray) else xr.DataArray(values, dims=("y", "x"))
    if 0 in found.shape:
        raise InputError(f"a map of {dict(found.sizes)} points has nothing to show")
    steps = {dim: -(-size // FINEST) for dim, size in found.sizes.items()}
    thin = found.isel({dim: slice(None, None, step) for dim, step in steps.items()}).compute()
    left = ", ".join(f"every {_nth(step)} along {dim}" for dim, step in steps.items() if step > 1)
    return thin, f"points drawn: {left}" if left else ""


def _nth(n: int) -> str:
    return f"{n}{'th' if n % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def _mesh(axes: Axes, grid: xr.DataArray, shown: Array, **look: Any) -> Any:
    up, across = grid.dims
    x, y = (_positions(grid, dim) for dim in (across, up))
    drawn = axes.pcolormesh(x, y, shown, shading="nearest", rasterized=True, **look)
    axes.set_xlabel(_title(grid, across))
    axes.set_ylabel(_title(grid, up))
    # Rows of an image, and depths, go down.
    downwards = up not in grid.coords or grid[up].attrs.get("positive") == "down"
    if downwards and not axes.yaxis_inverted():
        axes.invert_yaxis()
    return drawn


def _positions(grid: xr.DataArray, dim: Any) -> Array:
    """Coordinates along a dim, numbers or times; positions where there are none to draw by."""
    if dim in grid.coords and grid[dim].dtype.kind in "fiuM" and not grid[dim].isnull().any():
        return grid[dim].values
    return np.arange(grid.sizes[dim])


def _title(grid: xr.DataArray, dim: Any) -> str:
    if dim not in grid.coords:  # to get it would give positions
        return str(dim)
    coordinate = grid[dim]
    name, unit = coordinate.attrs.get("long_name", dim), coordinate.attrs.get("units")
    return f"{name} ({unit})" if unit else str(name)
