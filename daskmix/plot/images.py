"""Pictures of images and their segments; matplotlib is imported when a picture is begun."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskmix.block import Array

Axes = Any  # matplotlib.axes.Axes
Figure = Any  # matplotlib.figure.Figure

PANEL = 3.2  # inches


def grid(rows: int, columns: int, aspect: float = 1.0) -> tuple[Figure, Array]:
    """A figure of rows x columns panels, each `aspect` times as wide as high: the figure and its axes."""
    from matplotlib.figure import Figure

    # No pyplot: a picture is nobody's current figure, and needs no display.
    figure = Figure(figsize=(PANEL * aspect * columns, PANEL * rows), layout="constrained", dpi=150)
    return figure, figure.subplots(rows, columns, squeeze=False)


def photograph(axes: Axes, image: Array, title: str = "") -> Axes:
    """An image as it is: (y, x, 3), uint8."""
    axes.imshow(image, interpolation="nearest")
    return _bare(axes, title)


def segments(axes: Axes, labels: Array, colours: Array, title: str = "") -> Axes:
    """Labels (y, x), each in the colour (k, 3), 0 to 255, of its cluster; what has no label is left blank."""
    painted = np.full((*labels.shape, 3), 255, dtype=np.uint8)
    known = labels >= 0
    painted[known] = np.clip(np.rint(colours), 0, 255).astype(np.uint8)[labels[known].astype(int)]
    return photograph(axes, painted, title)


def uncertainty(axes: Axes, values: Array, title: str = "") -> Axes:
    """One minus the largest probability of each point: (y, x), with its scale."""
    # One half is a tie of two components; more than that takes three, and is rare.
    drawn = axes.imshow(values, cmap="magma", vmin=0.0, vmax=0.5, interpolation="nearest")
    axes.figure.colorbar(drawn, ax=axes, shrink=0.85, extend="max", label="1 - largest probability")
    return _bare(axes, title)


def selection(table: Any, criterion: str, axes: Axes = None) -> Axes:
    """The criterion of the best start of each model over their number of components, from the table of `select`."""
    if axes is None:
        axes = grid(1, 1, aspect=1.6)[1][0, 0]
    size = next(dim for dim in ("n_components", "n_clusters") if dim in table.dims)
    scores = table["score"].isel(init=0)
    for name in scores["covariance_type"].values if "covariance_type" in scores.dims else [None]:
        own = scores if name is None else scores.sel(covariance_type=name)
        axes.plot(table[size].values, own.values, marker="o", label=name)
    axes.set_xlabel(size)
    axes.set_ylabel(criterion)
    if "covariance_type" in scores.dims:
        axes.legend(title="covariance_type")
    return axes


def _bare(axes: Axes, title: str) -> Axes:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title)
    return axes
