"""Components over the rows: ellipses of two features, densities of one, and all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from daskmix.block import Array
from daskmix.errors import InputError, not_one_of
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
    feature_titles,
    fitted,
    grid,
    real,
    rgb,
    write,
)
from daskmix.plot.looks import MOST_FEATURES, Look, seen

LEVELS = (0.5, 0.9)  # shares of a component's rows that are inside its ellipses
SHOWN = ("density", "rows")


def ellipses(
    model: Any,
    X: Any = None,
    features: Any = None,
    *,
    show: str = "density",
    levels: Sequence[float] = LEVELS,
    axes: Axes = None,
    **options: Any,
) -> Axes:
    """Components of a mixture, or centres of K-means, in the plane of two features, over the rows.

    A component is drawn as the ellipses of equal density of its marginal that hold the shares `levels` of it: of a
    Gaussian with half axes sqrt(-2 log(1 - level) v), v the eigenvalues of its covariance; of Student's t by the F
    distribution. The number stands at the mean. Centres have no covariance, and no ellipse.

    Parameters
    ----------
    model : fitted estimator of daskmix
    X : as `fit` takes it, or a Look, or None
        Rows to draw beneath; none for None.
    features : two names or numbers
        The first two by default: to the right, and upwards.
    show : {"density", "rows"}
        All rows, as a histogram made in one pass; or a sample of them, in the colours of their labels (see `look`).
    levels : sequence of float
        Between 0 and 1.
    axes : matplotlib Axes
        Where to draw; a new figure by default.
    **options
        As `look` takes them: sample_weight, sample_dims, variables, limits, bins, sample.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError, FeatureError
        The model is not fitted, or has one feature alone; there is no such feature; X or an option cannot be used.
    """
    _, d = fitted(model)
    if d < 2:
        raise InputError("an ellipse is of two features, but the model has one; plot.pairs draws its densities")
    numbers = feature_numbers(model, (0, 1) if features is None else features)
    if len(numbers) != 2:
        raise InputError(f"features={features!r} must be two features; plot.pairs draws more")
    _check(show, levels)
    view = None if X is None else seen(model, X, numbers, options)
    own, axes = axes is None, canvas(axes, panel=3.8)
    _plane(axes, model, view, numbers, show, levels)
    for name, title in zip("xy", feature_titles(model, numbers), strict=True):
        getattr(axes, f"set_{name}label")(title)
    if view is not None and own:
        caption(axes, view.told(show == "rows", numbers))
    return axes


def pairs(
    model: Any,
    X: Any = None,
    features: Any = None,
    *,
    show: str = "density",
    levels: Sequence[float] = LEVELS,
    axes: Any = None,
    **options: Any,
) -> Array:
    """Each feature and each pair of them (a corner plot): the rows, and the model's components.

    On the diagonal the histogram of all rows as a density, each component's marginal density times its weight, and
    their sum, dashed; centres of K-means as lines. Below it what `ellipses` draws. All of it takes one look at the
    rows (see `look`).

    Parameters
    ----------
    model, X, show, levels, **options
        As for `ellipses`.
    features : names or numbers
        Up to eight; all by default.
    axes : (m, m) array of matplotlib Axes
        Where to draw m features; a new figure by default. Those above the diagonal are switched off.

    Returns
    -------
    (m, m) array of matplotlib Axes

    Raises
    ------
    InputError, FeatureError
        The model is not fitted; there is no such feature, or there are too many; X or an option cannot be used.
    """
    fitted(model)
    numbers = feature_numbers(model, features)
    m = len(numbers)
    if m > MOST_FEATURES:
        raise InputError(f"{m} features are too many for one picture; name up to {MOST_FEATURES}: features=")
    _check(show, levels)
    if axes is not None and np.shape(axes) != (m, m):
        raise InputError(f"axes has shape {np.shape(axes)}, but {m} features need ({m}, {m}): fig.subplots({m}, {m})")
    view = None if X is None else seen(model, X, numbers, options)
    own = axes is None
    axes = grid(m, m, panel=2.2 if m > 1 else 3.2)[1] if own else np.asarray(axes)
    titles = feature_titles(model, numbers)
    for row in range(m):
        for column in range(m):
            panel = axes[row, column]
            if column > row:
                panel.set_axis_off()
                continue
            if column == row:
                _profile(panel, model, view, numbers[row])
            else:
                _plane(panel, model, view, (numbers[column], numbers[row]), show, levels)
                panel.set_xlim(axes[column, column].get_xlim())
            panel.tick_params(labelsize=SMALL, labelbottom=row == m - 1, labelleft=column == 0)
            panel.tick_params(axis="y", left=column == 0 or column < row)
            if row == m - 1:
                panel.set_xlabel(titles[column])
                panel.tick_params(axis="x", rotation=30)
            if column == 0:
                panel.set_ylabel("density" if row == 0 else titles[row])
    for row in range(1, m):
        for column in range(row):
            axes[row, column].set_ylim(axes[row, row].get_xlim())
    if view is not None and own:
        caption(axes[0, 0], view.told(show == "rows", numbers))
    return axes


def ellipse(mean: Array, covariance: Array, level: float, nu: float | None = None) -> tuple[float, float, float]:
    """Width, height and angle, in degrees, of the ellipse about a mean that holds this share of a component.

    Parameters
    ----------
    mean : (2,)
    covariance : (2, 2)
        The scale matrix of Student's t.
    level : float
    nu : float or None
        Degrees of freedom of Student's t.
    """
    square = stats.chi2.ppf(level, 2) if nu is None else 2.0 * stats.f.ppf(level, 2, nu)
    # In units of the spreads' own size, so that no square is beyond all numbers.
    values, vectors = np.linalg.eigh(covariance)
    width, height = 2.0 * np.sqrt(square * np.maximum(values[::-1], 0.0))
    return float(width), float(height), float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))


def marginal_densities(model: Any, feature: Any, at: Array) -> Array:
    """Density of each component in one feature, times its weight: (k, len(at)), with noise (k + 1, len(at)).

    Their sum integrates to one. Noise is uniform within its box.
    """
    fitted(model)
    (number,) = feature_numbers(model, [feature])
    if not hasattr(model, "means_"):
        raise InputError("centres have no density; to_mixture() gives a K-means one, or fit a GaussianMixture")
    at = np.asarray(at, dtype=np.float64)
    sd = np.sqrt(model.to_xarray()["covariances"].values[:, number, number])
    each = []
    for j, (weight, mean) in enumerate(zip(model.weights_, model.means_[:, number], strict=True)):
        law = stats.t(model.nu_[j], mean, sd[j]) if hasattr(model, "nu_") else stats.norm(mean, sd[j])
        each.append(weight * law.pdf(at))
    if hasattr(model, "noise_weight_"):
        low, high = model.noise_box_[:, number]
        each.append(np.where((at >= low) & (at <= high), model.noise_weight_ / (high - low), 0.0))
    return np.array(each)


def _check(show: str, levels: Any) -> None:
    if show not in SHOWN:
        raise not_one_of("show", show, SHOWN)
    given = real("levels", levels)
    if given.ndim != 1 or not ((given > 0) & (given < 1)).all():
        raise InputError(f"levels={levels!r} must be shares between 0 and 1, such as (0.5, 0.9)")


def _plane(
    axes: Axes, model: Any, view: Look | None, numbers: tuple[int, ...], show: str, levels: Sequence[float]
) -> None:
    x, y = numbers
    middle, shades = centres(model)[:, [x, y]], colours(len(centres(model)))
    if view is not None:
        (_density if show == "density" else _rows)(axes, view, x, y, shades)
    if hasattr(model, "means_"):
        _outlines(axes, model, x, y, levels, shades)
    else:
        axes.scatter(*middle.T, s=120, c=shades, edgecolors="white", linewidths=1.0, zorder=4)
    for j, (a, b) in enumerate(middle):
        write(axes, a, b, str(j))
    if view is not None:
        for name, feature in (("x", x), ("y", y)):
            edges = view.edges[view.features.index(feature)]
            getattr(axes, f"set_{name}lim")(edges[0], edges[-1])
    else:
        axes.autoscale_view()


def _outlines(axes: Axes, model: Any, x: int, y: int, levels: Sequence[float], shades: Sequence[Any]) -> None:
    from matplotlib.patches import Ellipse

    dense = model.to_xarray()["covariances"].values[:, [x, y]][:, :, [x, y]]
    for j, mean in enumerate(model.means_[:, [x, y]]):
        nu = model.nu_[j] if hasattr(model, "nu_") else None
        for level in sorted(levels):
            width, height, angle = ellipse(mean, dense[j], level, nu)
            own = {"fill": False, "edgecolor": shades[j], "zorder": 4}
            # A white rim beneath, so that it is seen on dark and light.
            axes.add_patch(Ellipse(mean, width, height, angle=angle, **own | {"edgecolor": "white", "linewidth": 2.6}))
            axes.add_patch(Ellipse(mean, width, height, angle=angle, **own, linewidth=1.4))


def _density(axes: Axes, view: Look, x: int, y: int, shades: Sequence[Any]) -> None:
    from matplotlib.colors import PowerNorm

    mass = view.of_two(x, y)
    across, up = (view.edges[view.features.index(feature)] for feature in (x, y))
    most = mass.max(initial=0.0)
    # The root, so that sparse bins are seen beside full ones; empty ones stay blank.
    shown = np.ma.masked_where(mass.T <= 0, mass.T)
    norm = PowerNorm(0.5, vmin=-0.15 * most, vmax=1.5 * most) if most > 0 else None
    axes.pcolormesh(across, up, shown, cmap="Greys", norm=norm, rasterized=True, zorder=1)


def _rows(axes: Axes, view: Look, x: int, y: int, shades: Sequence[Any]) -> None:
    shade = np.array([*shades, rgb(NOISE_GREY)])[view.labels.astype(int)]
    # Rows near each other share a look; more of them are drawn fainter.
    alpha = float(np.clip(1_000 / max(1, len(view.rows)), 0.15, 0.8))
    axes.scatter(view.rows[:, x], view.rows[:, y], s=5, c=shade, alpha=alpha, linewidths=0, rasterized=True, zorder=1)


def _profile(axes: Axes, model: Any, view: Look | None, feature: int) -> None:
    """One feature: histogram and densities."""
    shades = colours(len(centres(model)))
    if view is not None:
        edges, density = view.of_one(feature)
        axes.stairs(density, edges, fill=True, color="#d5d5d5", zorder=1)
        axes.set_xlim(edges[0], edges[-1])
    if not hasattr(model, "means_"):
        for j, at in enumerate(centres(model)[:, feature]):
            axes.axvline(at, color=shades[j], linewidth=1.4)
        axes.set_ylim(bottom=0.0)
        return
    sd = np.sqrt(model.to_xarray()["covariances"].values[:, feature, feature])
    means = model.means_[:, feature]
    reach = view.edges[view.features.index(feature)] if view is not None else [*(means - 4 * sd), *(means + 4 * sd)]
    # Narrow components are drawn by points of their own.
    own = (means + sd * np.linspace(-4, 4, 81)[:, None]).ravel()
    at = np.unique(np.concatenate([np.linspace(min(reach), max(reach), 400), own]))
    at = at[(at >= min(reach)) & (at <= max(reach))]
    each = marginal_densities(model, feature, at)
    for density, shade in zip(each, [*shades, NOISE_GREY], strict=False):
        axes.plot(at, density, color=shade, linewidth=1.4)
    if len(each) > 1:
        axes.plot(at, each.sum(axis=0), color=INK, linewidth=1.0, linestyle="--")
    axes.set_xlim(min(reach), max(reach))
    axes.set_ylim(bottom=0.0)
