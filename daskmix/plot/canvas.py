"""What pictures are drawn on and in: figures without pyplot, colours, and what features are called."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from daskmix.block import Array
from daskmix.errors import FeatureError, InputError, MissingPackageError

Axes = Any  # matplotlib.axes.Axes
Figure = Any  # matplotlib.figure.Figure

PANEL = 3.2  # inches
# Nine of Paul Tol's "muted" scheme (Colour schemes, SRON/EPS/TN/09-002, issue 3.2), and a brown: apart for the common
# kinds of colour blindness, and none of them grey.
TEN = (
    "#332288", "#CC6677", "#44AA99", "#882255", "#88CCEE", "#117733", "#AA4499", "#999933", "#661100", "#DDCC77",
)  # fmt: skip
NOISE_GREY = "#9a9a9a"
INK = "#222222"
SMALL = 8  # points


def grid(rows: int, columns: int, aspect: float = 1.0, panel: float = PANEL) -> tuple[Figure, Array]:
    """A figure of rows x columns panels, each `aspect` times as wide as high: the figure and its axes.

    Parameters
    ----------
    rows, columns : int
    aspect : float
    panel : float
        Height of a panel in inches.

    Raises
    ------
    MissingPackageError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(
            f'pictures need matplotlib, but {error}; in the clone of daskmix: pip install ".[plot]"'
        ) from error
    # No pyplot: a picture is nobody's current figure, and needs no display.
    figure = Figure(figsize=(panel * aspect * columns, panel * rows), layout="constrained", dpi=150)
    return figure, figure.subplots(rows, columns, squeeze=False)


def canvas(axes: Axes, aspect: float = 1.0, panel: float = PANEL) -> Axes:
    """The user's axes, or new ones."""
    return grid(1, 1, aspect, panel)[1][0, 0] if axes is None else axes


def colours(k: int) -> list[tuple[float, ...]]:
    """A colour for each label from 0 to k - 1: RGB, 0 to 1.

    A label's colour depends on its number alone. The first ten are apart for the common kinds of colour blindness; the
    next ten are the same, halfway to white, then halfway to black; from 30 labels on they come again, so that only the
    numbers, which pictures of mixtures show, tell them apart.
    """
    ten = np.array([rgb(code) for code in TEN])
    thirty = np.concatenate([ten, 0.5 + 0.5 * ten, 0.5 * ten])
    return [tuple(map(float, thirty[j % len(thirty)])) for j in range(k)]


def rgb(code: str) -> tuple[float, ...]:
    """The numbers, 0 to 1, of a colour written as #rrggbb."""
    return tuple(int(code[i : i + 2], 16) / 255 for i in (1, 3, 5))


def fitted(model: Any) -> tuple[int, int]:
    """How many components or clusters a fitted model has, in how many features.

    Raises
    ------
    InputError
        It is not fitted, or no model of daskmix.
    """
    name = type(model).__name__
    if not hasattr(model, "_label_function"):
        raise InputError(f"a picture is of a model of daskmix, but this is a {name}; pass a KMeans or a mixture")
    if not model.__sklearn_is_fitted__():
        raise InputError(f"this {name} is not fitted; call fit(X) before it is drawn")
    k, d = centres(model).shape
    return k, d


def centres(model: Any) -> Array:
    """Means of components or centres of clusters: (k, d)."""
    found: Array = model.means_ if hasattr(model, "means_") else model.cluster_centers_
    return found


def feature_numbers(model: Any, features: Any) -> tuple[int, ...]:
    """Which features these names or numbers are; all for None.

    Raises
    ------
    FeatureError
        The model has no such feature, or one is named twice.
    """
    d = fitted(model)[1]
    if features is None:
        return tuple(range(d))
    names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    known = ", ".join(names[:8]) or f"0 to {d - 1}"
    numbers: list[int] = []
    for feature in [features] if isinstance(features, str | Integral) else _listed(features):
        number: Any = names.index(str(feature)) if feature in names else feature
        if isinstance(number, bool) or not isinstance(number, Integral) or not 0 <= int(number) < d:
            raise FeatureError(f"the model has no feature {feature!r}; it has {known}")
        numbers.append(int(number))
    if not numbers or len(set(numbers)) < len(numbers):
        raise FeatureError(f"features={features!r} must name at least one feature, and each of them once")
    return tuple(numbers)


def _listed(features: Any) -> list[Any]:
    if not isinstance(features, Iterable):
        raise FeatureError(f"features={features!r} must be names or numbers of features")
    return list(features)


def feature_titles(model: Any, numbers: Sequence[int]) -> list[str]:
    """What stands on an axis: the name of each feature, and its unit where the model knows it."""
    names = getattr(model, "feature_names_in_", None)
    units = getattr(model, "feature_units_", None)
    titles = []
    for number in numbers:
        name = f"feature {number}" if names is None else str(names[number])
        unit = None if units is None else units[number]
        titles.append(f"{name} ({unit})" if unit not in (None, "", "1", 1) else name)
    return titles


def real(what: str, values: Any) -> Array:
    """Numbers that a user gave, as float64.

    Raises
    ------
    InputError
        They are none.
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be numbers, but {error}") from error


def label_names(names: Any, k: int) -> list[str]:
    """What labels are called: their numbers, or what the user calls them.

    Raises
    ------
    InputError
        There are not as many names as labels.
    """
    if names is None:
        return [str(j) for j in range(k)]
    if isinstance(names, str) or not isinstance(names, Collection) or len(names) != k:
        raise InputError(f"names={names!r} must be {k} names, one for each label from 0 to {k - 1}")
    return [str(name) for name in names]


def write(axes: Axes, x: float, y: float, text: str, colour: Any = INK) -> None:
    """Text with a white rim, so that it is legible on anything."""
    from matplotlib.patheffects import withStroke

    rim = [withStroke(linewidth=2.0, foreground="white")]
    axes.annotate(
        text, (x, y), ha="center", va="center", fontsize=SMALL, fontweight="bold", color=colour, path_effects=rim,
        annotation_clip=True, zorder=5,
    )  # fmt: skip


def caption(axes: Axes, text: str) -> None:
    """Small print above a panel."""
    axes.set_title(text, loc="left", fontsize=SMALL, color=INK)


def whole_numbers(axis: Any) -> None:
    """Ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))
