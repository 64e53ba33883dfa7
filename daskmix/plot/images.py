"""Pictures of images and their segments."""

from __future__ import annotations

import numpy as np

from daskmix.block import Array
from daskmix.plot.canvas import Axes


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


def _bare(axes: Axes, title: str) -> Axes:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title)
    return axes
