"""One look at the rows, of which several pictures can be drawn: histograms of all rows, and some of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from daskmix.block import Array, Missing
from daskmix.errors import InputError, whole
from daskmix.fitting import SPARE
from daskmix.histograms import CountBins, Histograms
from daskmix.plot.canvas import feature_numbers, fitted, real
from daskmix.reduction import Together
from daskmix.sampling import Sample, UniformSample

MOST_FEATURES = 8  # of one look: pairs of more are neither legible nor small
MOST_ROWS = 100_000  # of a sample that is drawn
REACH = 4.0  # standard deviations about the means that histograms cover


@dataclass(frozen=True)
class Look:
    """What one look at the rows of a model saw; pictures take it in the place of X.

    Attributes
    ----------
    features : tuple of int
        The m features that were looked at, by their number.
    edges : (m, bins + 1)
        Of the bins, in units of X.
    histograms : Histograms
        Mass of ALL rows in the bins of each feature and of each pair of features: (m, bins) and (pairs, bins, bins).
    rows : (s, d)
        A few of the rows, every row with the same chance, drawn by its index, in units of X.
    weights, labels : (s,)
        Of these rows.
    total : int
        Rows that were visited, those that were left out among them.
    n_passes : int
        Times that each chunk was read for it.
    """

    features: tuple[int, ...]
    edges: Array
    histograms: Histograms
    rows: Array
    weights: Array
    labels: Array
    total: int
    n_passes: int

    def of_one(self, feature: int) -> tuple[Array, Array]:
        """Edges and density of a feature: (bins + 1,), (bins,), which integrates to the share of what is inside."""
        i = self.features.index(feature)
        seen = self.histograms.seen[i]
        return self.edges[i], self.histograms.single[i] / (np.diff(self.edges[i]) * (seen if seen > 0 else 1.0))

    def of_two(self, x: int, y: int) -> Array:
        """Mass in the bins of two features: (bins of x, bins of y)."""
        i, j = self.features.index(x), self.features.index(y)
        pair = list(combinations(range(len(self.features)), 2)).index((min(i, j), max(i, j)))
        found: Array = self.histograms.double[pair]
        return found if i < j else found.T

    def told(self, points: bool = False, features: Sequence[int] | None = None) -> str:
        """What a picture of these features, by default of all, shows of the rows, in words."""
        which = [self.features.index(f) for f in (self.features if features is None else features)]
        if points:
            own, edges = self.rows[:, [self.features[i] for i in which]], self.edges[which]
            out = ((own < edges[:, 0]) | (own > edges[:, -1])).any(axis=1).mean()
            some = f"{len(self.rows):,} of {self.total:,} rows, drawn at random"
            said, kind = (f"all {self.total:,} rows" if len(self.rows) >= self.total else some), "them"
        else:
            inside, seen = self.histograms.single[which].sum(), self.histograms.seen[which].sum()
            out = 1.0 - inside / seen if seen > 0 else 0.0
            said, kind = f"density of all {self.total:,} rows", "values"
        return said + (f",\n{100 * out:.2g} % of {kind} outside" if out > 1e-9 else "")


def look(
    model: Any,
    X: Any,
    features: Any = None,
    *,
    sample_weight: Any = None,
    sample_dims: Any = None,
    variables: Any = None,
    limits: Mapping[Any, tuple[float, float]] | None = None,
    bins: int = 60,
    sample: int = 2_000,
) -> Look:
    """Look at rows once, to draw several pictures: histograms of all of them, and a sample.

    One pass: weights count, and nothing is kept of a chunk but its counts and the drawn rows. The bins of a mixture
    reach four standard deviations about its means; centres alone do not say how far rows reach, so that K-means takes a
    pass before, which draws the sample, unless `limits` has all features.

    Parameters
    ----------
    model : fitted estimator of daskmix
    X, sample_weight, sample_dims, variables
        As `fit` takes them.
    features : names or numbers
        What to look at, at most eight; all by default.
    limits : mapping from a feature to (low, high)
        Where bins begin and end, in units of X; what is outside is counted, not drawn.
    bins : int
        Of each feature.
    sample : int
        Rows to draw, each with the same chance, whatever it weighs: by the seed of the fit and the row's index.

    Returns
    -------
    Look

    Raises
    ------
    InputError, InputTypeError, FeatureError
        The model is not fitted, X cannot be used, or there is no such feature.
    """
    d = fitted(model)[1]
    numbers = feature_numbers(model, features)
    if len(numbers) > MOST_FEATURES:
        raise InputError(f"{len(numbers)} features are too many for one picture; name up to {MOST_FEATURES}: features=")
    whole("bins", bins, 1, 1_000)
    whole("sample", sample, 1, MOST_ROWS)
    spans = _spans(model, numbers, limits)
    rows = model._rows(model._opened(X, variables), sample_weight, sample_dims, reset=False)
    gaps = sample_weight is not None or rows.missing is not Missing.refuse
    drawn = UniformSample.of(sample, getattr(model, "seed_", 0), d, rows.dtype, rows.total, SPARE if gaps else 1)
    with model._asking(rows) as fit:
        found: Sample | None = None
        if np.isnan(spans).any():
            found = fit.ask(drawn, "sample")
            spans = np.where(np.isnan(spans), _reach(found.x, numbers), spans)
        edges = np.linspace(spans[:, 0], spans[:, 1], bins + 1, axis=1)
        counted = CountBins(numbers, edges)
        if found is None:
            histograms, found = fit.ask(Together((counted, drawn)), "look")
        else:
            histograms = fit.ask(counted, "look")
        total, n_passes = fit.history[-1]["rows"], len(fit.history)
    if histograms.mass == 0:
        raise InputError("no row is left to draw: X is empty, or every row is missing or of weight zero")
    labels, _ = model._label_function()
    x = found.x
    own = labels(x, bool(np.isnan(x).any())) if len(x) else np.empty(0, np.int64)
    return Look(numbers, edges, histograms, x, found.w, np.asarray(own), total, n_passes)


def seen(model: Any, X: Any, features: Any, options: Mapping[str, Any]) -> Look:
    """X, if it is a look at the right features, or a look at it."""
    if not isinstance(X, Look):
        return look(model, X, features, **options)
    if options:
        raise InputError(f"{next(iter(options))}= says how to look at X; pass it to look")
    absent = [f for f in feature_numbers(model, features) if f not in X.features] if features is not None else []
    if absent:
        raise InputError(f"this look did not see feature {absent[0]}; look again with features= that has it")
    return X


def _spans(model: Any, numbers: tuple[int, ...], limits: Mapping[Any, tuple[float, float]] | None) -> Array:
    """Where bins begin and end, (m, 2), NaN where it is not known."""
    spans = np.full((len(numbers), 2), np.nan)
    if hasattr(model, "means_"):
        dense = model.to_xarray()["covariances"].values
        sd = np.sqrt(np.diagonal(dense, axis1=1, axis2=2))
        counts = model.weights_ > 0
        low = (model.means_ - REACH * sd)[counts].min(axis=0)
        high = (model.means_ + REACH * sd)[counts].max(axis=0)
        spans = _apart(np.stack([low, high], axis=1)[list(numbers)])
    if not isinstance(limits or {}, Mapping):
        raise InputError(f"limits={limits!r} must say of which features: limits={{feature: (low, high)}}")
    for feature, span in (limits or {}).items():
        (number,) = feature_numbers(model, [feature])
        given = real(f"limits of {feature!r}", span)
        if given.shape != (2,) or not np.isfinite(given).all() or not given[0] < given[1]:
            raise InputError(f"limits of {feature!r} are {span!r}; pass two numbers, the lower first")
        if number in numbers:
            spans[numbers.index(number)] = given
    return spans


def _reach(x: Array, numbers: tuple[int, ...]) -> Array:
    """As far as the rows of a sample reach, and a twentieth more: (m, 2)."""
    own = x[:, list(numbers)].astype(np.float64)
    there = ~np.isnan(own)
    low = np.where(there, own, np.inf).min(axis=0, initial=np.inf)
    high = np.where(there, own, -np.inf).max(axis=0, initial=-np.inf)
    known = low <= high
    low, high = np.where(known, low, 0.0), np.where(known, high, 1.0)
    more = 0.05 * (high - low)
    return _apart(np.stack([low - more, high + more], axis=1))


def _apart(spans: Array) -> Array:
    """Spans of some width, also of a feature that is constant."""
    middle = spans.mean(axis=1)
    least = np.maximum(np.abs(middle), 1.0) * 1e-6
    close = spans[:, 1] - spans[:, 0] < 1e-12 * np.maximum(np.abs(middle), 1e-300)
    return np.where(close[:, None], np.stack([middle - least, middle + least], axis=1), spans)
