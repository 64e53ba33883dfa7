"""What estimators of clusters share: the questions to fitted centres."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from daskmix.algorithms.lloyd import Lloyd
from daskmix.arrays import alongside, namespace
from daskmix.block import Array, all_finite, with_room
from daskmix.centroids import Assign, Centroids
from daskmix.estimators.base import Estimator, Source
from daskmix.fitting import Fit
from daskmix.kernels import Frame
from daskmix.kernels.reference import enter, nearest, nearest_observed, squares_observed
from daskmix.sampling import Summary
from daskmix.store import LEFT_OUT


class ClusterEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, Estimator):
    """Base of the estimators of clusters; not for use on its own."""

    metric: str = "euclidean"
    cluster_centers_: Array
    cluster_weights_: Any
    inertia_: float
    n_iter_: int
    n_passes_: int
    _labels: Any
    _fitted_on: Any

    @property
    def labels_(self) -> Any:
        """The label of each row that was fitted; computed when first asked for, lazy where X is lazy."""
        if getattr(self, "_fitted_on", None) is None and getattr(self, "_labels", None) is None:
            raise AttributeError("labels_ is there after fit, and not in a model that was loaded; use predict(X)")
        if self._labels is None:
            X, sample_dims = self._fitted_on
            self._labels = self.predict(X, sample_dims=sample_dims)
        return self._labels

    def predict(self, X: Source, *, sample_dims: Any = None, variables: Any = None) -> Any:
        """The nearest centre of each row: int32 (n,), in the type of X and lazy where X is; -2 for rows left out.

        In xarray the sampled dims and their coordinates stay, and rows left out are NaN.
        """
        check_is_fitted(self)
        labels, k = self._label_function()
        attrs = (("long_name", "cluster"), ("n_clusters", k))
        function = self._function("label", labels, np.int32, LEFT_OUT, attrs=attrs)
        return self._answer(X, function, sample_dims, variables)

    def _label_function(self) -> tuple[Callable[[Array, bool], Array], int]:
        return partial(nearest_of, self.cluster_centers_), len(self.cluster_centers_)

    def transform(self, X: Source, *, sample_dims: Any = None, variables: Any = None) -> Any:
        """Distance of each row to each centre: (n, k), in the type of X and lazy where X is; NaN for rows left out.

        With metric="cosine" it is 1 - cosine.
        """
        check_is_fitted(self)
        dtype = np.float32 if getattr(X, "dtype", None) == np.float32 else np.float64
        k = len(self.cluster_centers_)
        of_rows = partial(_cosine_distances if self.metric == "cosine" else _distances, self.cluster_centers_)
        distances = self._function("distance", of_rows, dtype, width=k, over="cluster")
        return self._answer(X, distances, sample_dims, variables)

    def score(
        self, X: Source, y: Any = None, sample_weight: Any = None, *, sample_dims: Any = None, variables: Any = None
    ) -> float:
        """Minus the inertia of these rows; one pass."""
        check_is_fitted(self)
        fit = self._asking(self._rows(self._opened(X, variables), sample_weight, sample_dims, reset=False))
        frame = cluster_frame(self.cluster_centers_, fit.rows.dtype)
        cost = fit.ask(Assign(Centroids(frame.enter(self.cluster_centers_)), frame), "score").cost
        return -float(cost) / float(frame.scale[0]) ** 2

    def to_xarray(self) -> xr.Dataset:
        """Centres and weights of the clusters as a Dataset over cluster and feature."""
        check_is_fitted(self)
        return xr.Dataset(
            {
                "cluster_centers": (("cluster", "feature"), self.cluster_centers_),
                "cluster_weights": ("cluster", self.cluster_weights_),
            },
            coords=self._feature_coords(),
            attrs={"inertia": self.inertia_, "n_iter": self.n_iter_, "n_passes": self.n_passes_},
        )

    def _lloyd(self, fit: Fit, summary: Summary) -> Lloyd:
        """The iteration that suits rows which lie so."""
        variance = float(summary.variance.mean())
        if self.metric == "cosine":  # of length one about the origin, in the frame too
            frame = Frame(np.zeros(fit.rows.d), np.ones(fit.rows.d))
        else:
            frame = Frame.of(summary.mean, np.full(fit.rows.d, np.sqrt(variance)), fit.rows.dtype)
        return Lloyd(frame, float(self.tol) * variance * float(frame.scale[0]) ** 2, int(self.max_iter))

    def _row_bytes(self) -> int:
        k, d = self.cluster_centers_.shape
        return 16 * (k + d)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "cluster_centers_")

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.allow_nan = self.missing != "raise"
        return tags


def cluster_frame(centres: Array, dtype: np.dtype) -> Frame:
    """Coordinates for rows near these centres."""
    spread = float(np.sqrt(centres.var(axis=0).mean()))
    return Frame.of(centres.mean(axis=0), np.full(centres.shape[1], spread), dtype)


def nearest_of(centres: Array, x: Array, gaps: bool) -> Array:
    """The nearest of some centres (k, d), by what is there of a row: (n,)."""

    def ask(x: Array) -> tuple[Array, Array]:
        frame = cluster_frame(centres, x.dtype)
        return (nearest_observed if gaps else nearest)(enter(x, frame), frame.enter(centres))

    return with_room(ask, lambda found: all_finite(found[1]), x)[0]


def _distances(centres: Array, x: Array, gaps: bool) -> Array:
    if gaps:
        return namespace(x).sqrt(squares_observed(x, centres))
    xp, centres = namespace(x), alongside(centres, x)
    out = xp.empty((len(x), len(centres)))
    for j in range(len(centres)):
        out[:, j] = xp.sqrt(((x - centres[j]) ** 2).sum(axis=1))
    return out


def _cosine_distances(centres: Array, x: Array, gaps: bool) -> Array:
    return _distances(centres, x, gaps) ** 2 / 2
