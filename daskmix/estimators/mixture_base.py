"""What estimators of mixtures share: the questions to a fitted one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from sklearn.base import DensityMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from daskmix.algorithms.em import EM
from daskmix.algorithms.merging import Merging
from daskmix.arrays import alongside, namespace
from daskmix.block import Array, Missing, all_finite, with_room
from daskmix.covariance import Covariance
from daskmix.derived import Draws
from daskmix.device import suited
from daskmix.errors import InputError, whole
from daskmix.estimators.base import Estimator, Source
from daskmix.estimators.mixture_start import STRUCTURES
from daskmix.family import Conjugate, Family
from daskmix.fitting import Fit
from daskmix.kernels import Frame, Order, compiled
from daskmix.kernels.reference import mahalanobis, normalise
from daskmix.mixture import Mixture
from daskmix.moments import Moments
from daskmix.race import MOST_STARTS
from daskmix.sampling import Summary
from daskmix.sharing import SOFT, Explain, Sharing
from daskmix.sources.dask import is_dask_frame
from daskmix.store import LEFT_OUT, NOISE
from daskmix.structures import Structure

INITS = ("auto", "kmeans", "k-means++", "random", "random_from_data")
KINDS = {Order.full: "full", Order.pooled: "tied", Order.diagonal: "diag", Order.trace: "spherical"}


class MixtureEstimator(DensityMixin, Estimator):
    """Base of the estimators of Gaussian mixtures; not for use on its own."""

    fit: Any
    n_components: int
    covariance_type: str
    reg_covar: float | str
    init_params: Any
    # Explicit starts, where an estimator takes them.
    weights_init: Any = None
    means_init: Any = None
    precisions_init: Any = None
    covariance_init: Any = None
    fixed: Any = None
    noise: bool = False
    weights_: Array
    means_: Array
    covariances_: Array
    precisions_cholesky_: Array
    nu_: Array  # where components are Student's t
    lower_bound_: float
    n_iter_: int
    n_passes_: int

    # --- questions to a fitted model ----------------------------------------------------------------------------------

    def fit_predict(self, X: Source, y: Any = None, sample_weight: Any = None, **kwargs: Any) -> Any:
        """Fit, then the label of each row."""
        self.fit(X, y, sample_weight, **kwargs)
        return self.predict(X, sample_dims=kwargs.get("sample_dims"), variables=kwargs.get("variables"))

    def predict(self, X: Source, *, sample_dims: Any = None, variables: Any = None) -> Any:
        """The most probable component of each row: int32 (n,), in the type of X and lazy where X is.

        -1 for noise, -2 for rows left out.
        """
        check_is_fitted(self)
        labels, k = self._label_function()
        attrs = (("long_name", "component"), ("n_components", k))
        function = self._function("label", labels, np.int32, LEFT_OUT, attrs=attrs)
        return self._answer(X, function, sample_dims, variables)

    def _label_function(self) -> tuple[Callable[[Array, bool], Array], int]:
        return partial(_labels, self._model()), len(self.weights_)

    def predict_proba(self, X: Source, *, sample_dims: Any = None, variables: Any = None) -> Any:
        """Responsibilities: probability of each component given the row, (n, k), in the type of X.

        With noise (n, k + 1), of which the last is the noise's.
        """
        check_is_fitted(self)
        k = len(self._model().weights)
        of_rows = partial(responsibilities, self._model())
        function = self._function("probability", of_rows, np.float64, width=k, over="component")
        return self._answer(X, function, sample_dims, variables)

    def uncertainty(self, X: Source, *, sample_dims: Any = None, variables: Any = None) -> Any:
        """One minus the largest responsibility of each row: (n,), in the type of X."""
        check_is_fitted(self)
        function = self._function("uncertainty", partial(_uncertainty, self._model()), np.float64)
        return self._answer(X, function, sample_dims, variables)

    def mahalanobis(self, X: Source, *, sample_dims: Any = None, variables: Any = None) -> Any:
        """Mahalanobis distance of each row to each component, by the features that it has: (n, k), in the type of X."""
        check_is_fitted(self)
        of_rows = partial(_mahalanobis, self._model())
        k = len(self.weights_)
        function = self._function("mahalanobis", of_rows, np.float64, width=k, over="component")
        return self._answer(X, function, sample_dims, variables)

    def impute(self, X: Source, *, sample_dims: Any = None, variables: Any = None) -> Any:
        """Rows with what the mixture expects where a value is missing, given those that are there: (n, d).

        In the type of X and lazy where X is; of a Dataset a DataArray with the dim "feature". Rows of which nothing is
        there stay NaN. Ghahramani & Jordan (1994), Supervised learning from incomplete data via an EM approach.
        """
        check_is_fitted(self)
        self._refuse_tails("what is expected of values that are missing")
        if hasattr(self, "noise_weight_"):
            raise InputError("of a row that is noise no value can be expected; fit with noise=False to impute")
        d, dtype = self.means_.shape[1], np.result_type(getattr(X, "dtype", np.float64), np.float32)
        function = self._function("imputed", partial(_completed, self._model()), dtype, width=d, over="feature")
        found = self._answer(X, replace(function, missing=Missing.observe), sample_dims, variables)
        names = [str(name) for name in getattr(self, "feature_names_in_", ())]
        if isinstance(found, xr.DataArray):
            return _with_feature_dim(found, X, names)
        if is_dask_frame(found) and names:
            return found.rename(columns=dict(zip(found.columns, names, strict=True)))
        return found

    def _refuse_tails(self, what: str) -> None:
        if hasattr(self, "nu_"):
            raise InputError(f"{what} is known of Gaussian components alone; fit without nu")

    def score_samples(self, X: Source, *, sample_dims: Any = None, variables: Any = None) -> Any:
        """Log density of each row, in units of X: (n,), in the type of X."""
        check_is_fitted(self)
        function = self._function("log_density", partial(_log_density, self._model()), np.float64)
        return self._answer(X, function, sample_dims, variables)

    def score(
        self, X: Source, y: Any = None, sample_weight: Any = None, *, sample_dims: Any = None, variables: Any = None
    ) -> float:
        """Mean log-likelihood of a row, weighted; one pass."""
        sums = self._measured(X, sample_weight, sample_dims, variables)
        return float(sums.score / sums.mass.sum())

    def _measured(self, X: Source, weight: Any, sample_dims: Any, variables: Any) -> Moments:
        check_is_fitted(self)
        fit = self._asking(self._rows(self._opened(X, variables), weight, sample_dims, reset=False))
        model, frame = framed(self._model(), fit.rows.dtype)
        measured: Moments = fit.ask(Explain(model, frame, model.path(fit.rows.dtype), np.zeros(fit.rows.d)), "score")
        if not measured.mass.sum() > 0:
            raise InputError("no row is left to score: X is empty, or every row is missing or of weight zero")
        return measured

    def sample(self, n_samples: int = 1, *, chunks: Any = None) -> tuple[Any, Any]:
        """Rows drawn from the mixture, (n, d), and their components, (n,), -1 for noise.

        With `chunks`, rows of each or as Dask takes it, both are Dask arrays, drawn when they are computed: each row
        depends on `random_state` and its number alone, not on the chunks.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise InputError(f"n_samples={n_samples} must be at least 1")
        if chunks is not None or hasattr(self, "noise_weight_"):
            seed = self._draw_seed()
            draws = Draws(self._model(), seed)
            if chunks is None:
                return draws.rows(np.arange(n_samples)), draws.components(np.arange(n_samples))
            index, d = da.arange(n_samples, chunks=chunks), self.means_.shape[1]
            rows = index.map_blocks(draws.rows, new_axis=1, chunks=(*index.chunks, (d,)), dtype=np.float64)
            return rows, index.map_blocks(draws.components, dtype=np.int64)
        rng = self._random_state()
        counts = rng.multinomial(n_samples, self.weights_ / self.weights_.sum())
        k, d = self.means_.shape
        dense = self._model().covariance.dense(k, d)
        # With unit variances, so that units decide nothing: NumPy takes what is small beside the largest for rounding.
        sd = np.sqrt(np.diagonal(dense, axis1=1, axis2=2))
        each = zip(self.means_, sd, dense / (sd[:, :, None] * sd[:, None, :]), counts, strict=True)
        drawn = [m + s * rng.multivariate_normal(np.zeros(d), c, n) for m, s, c, n in each]
        if hasattr(self, "nu_"):
            each = zip(self.means_, self.nu_, drawn, counts, strict=True)
            drawn = [m + (x - m) / np.sqrt(rng.chisquare(nu, n) / nu)[:, None] for m, nu, x, n in each]
        return np.concatenate(drawn), np.repeat(np.arange(k), counts)

    def merge(
        self,
        X: Source,
        n_clusters: int = 1,
        sample_weight: Any = None,
        *,
        sample_dims: Any = None,
        variables: Any = None,
    ) -> xr.Dataset:
        """Components merged into clusters, two at a time, down to `n_clusters`; a pass over X for each number.

        Of all pairs those are merged that lower the entropy of the clusters' probabilities most, so that a cluster
        which takes several components to describe becomes one (clustCombi; Baudry, Raftery, Celeux, Lo & Gottardo
        2010). Where entropy over n_clusters bends is a good number.

        Returns
        -------
        xr.Dataset
            `cluster` (n_clusters, component), the number of the cluster of each component, and `entropy` (n_clusters),
            the mean of a row in nats. Labels are `found.cluster.sel(n_clusters=3).values[model.predict(X)]`.

        Raises
        ------
        InputError, InputTypeError
            X cannot be used, or there are not so many components.
        """
        check_is_fitted(self)
        k = len(self.weights_)
        whole("n_clusters", n_clusters, 1, k)
        if hasattr(self, "noise_weight_"):
            raise InputError("components with noise beside them cannot be merged, for noise belongs to no cluster")
        algorithm = Merging(partial(responsibilities, self._model()), k, int(n_clusters))
        with self._asking(self._rows(self._opened(X, variables), sample_weight, sample_dims, reset=False)) as fit:
            (ended,) = fit.run([algorithm], [algorithm.start()], "merge", "entropy")
        mergers = ended.mergers
        cluster = np.empty((len(mergers), k), dtype=np.int64)
        for row, merger in zip(cluster, mergers, strict=True):
            for number, group in enumerate(merger.groups):
                row[list(group)] = number
        return xr.Dataset(
            {
                "cluster": (("n_clusters", "component"), cluster),
                "entropy": ("n_clusters", np.array([merger.entropy for merger in mergers])),
            },
            coords={"n_clusters": [len(merger.groups) for merger in mergers], "component": np.arange(k)},
        )

    def to_xarray(self) -> xr.Dataset:
        """Weights, means and covariances as a Dataset over component, feature and feature_2; of Student's t also nu."""
        check_is_fitted(self)
        k, d = self.means_.shape
        names = self._feature_coords()
        coords = {**names, **({"feature_2": names["feature"]} if names else {})}
        return xr.Dataset(
            {
                "weights": ("component", self.weights_),
                "means": (("component", "feature"), self.means_),
                "covariances": (("component", "feature", "feature_2"), self._model().covariance.dense(k, d)),
                **self._more_parameters(),
            },
            coords=coords,
            attrs={
                "covariance_type": self.covariance_type,
                "lower_bound": self.lower_bound_,
                "n_iter": self.n_iter_,
                "n_passes": self.n_passes_,
            },
        )

    def _more_parameters(self) -> dict[str, Any]:
        """What a mixture consists of beside weights, means and covariances."""
        return {}

    def _set_parameters(self, weights: Array, means: Array, covariance: Covariance) -> None:
        self.weights_, self.means_ = weights, means
        self.covariances_ = covariance.values
        self.precisions_cholesky_ = covariance.factors
        self.precisions_ = covariance.precisions()

    def _check_start(self) -> int:
        """Whether the parameters that all mixtures have can be used; k."""
        k = self._whole("n_components", 1)
        self._real("tol")
        self._whole("max_iter", 0)
        self._whole("n_init", 1, MOST_STARTS)
        if isinstance(self.init_params, str):
            self._option("init_params", INITS)
        if isinstance(self.reg_covar, str):
            self._option("reg_covar", ("auto",))
        else:
            self._real("reg_covar")
        return k

    def _sharings(self) -> tuple[Sharing, ...]:
        """How the first iterations share rows out, and the last of these all that follow."""
        return (SOFT,)

    def _em(self, frame: Frame, dtype: np.dtype, floor: Array) -> EM:
        """The textbook's iteration."""
        return EM(frame, dtype, floor, float(self.tol), int(self.max_iter), self._sharings())

    def _prior(self, fit: Fit, summary: Summary, frame: Frame) -> Conjugate | None:
        """Of means and covariances, in the units of X, where the M-step has one."""
        return None

    def _structure(self) -> Structure:
        return STRUCTURES[self.covariance_type]

    def _family(self) -> Family:
        return Family(self._structure())

    def _model(self) -> Mixture:
        """In the units of X."""
        covariance = self._structure().covariance(self.covariances_, self.precisions_cholesky_)
        return Mixture(self.weights_, self.means_, covariance, self._family())

    def _answer_bytes(self, k: int, d: int) -> int:
        order = self._structure().order
        second = {Order.trace: k, Order.diagonal: k * d, Order.full: k * d * d, Order.pooled: d * d}[order]
        tails = 2 * k if getattr(self, "nu", None) is not None else 0
        return 8 * (k + k * d + second + tails)

    def _row_bytes(self) -> int:
        k, d = self.means_.shape
        # Products of features are gathered, multiplied and joined: four arrays of them at a time.
        products = 4 * d * (d + 1) // 2 if self._structure().order is Order.full else 4 * d
        return 8 * (3 * k + 3 * d + products)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "means_")

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != "raise"
        return tags


def framed(model: Mixture, dtype: np.dtype) -> tuple[Mixture, Frame]:
    """A model in the units of X, in a frame of its own for rows of this type."""
    k, d = model.shape
    centre = np.average(model.means, axis=0, weights=model.own_weights)
    within = np.diagonal(model.covariance.dense(k, d), axis1=1, axis2=2).mean(axis=0)
    spread = np.sqrt(within + np.average((model.means - centre) ** 2, axis=0, weights=model.own_weights))
    if model.structure.common_scale:
        spread = np.full(d, np.sqrt((spread**2).mean()))
    frame = Frame.of(centre, spread, dtype)
    return model.rescaled(frame.scale, frame.enter(model.means)), frame


def _joint(model: Mixture, x: Array, gaps: bool) -> Array:
    """log p(x, k), in units of X: (n, k)."""

    def ask(x: Array) -> Array:
        within, frame = framed(model, x.dtype)
        path, nothing, log_scale = within.path(x.dtype), np.zeros(x.shape[1]), np.log(frame.scale)
        if gaps:
            densities = within.densities_observed(path, nothing, log_scale)
        else:
            densities = within.densities(path, nothing, float(log_scale.sum()))
        return suited(compiled, x).joint(x, frame, densities).astype(np.float64)

    return with_room(ask, all_finite, x)


def _labels(model: Mixture, x: Array, gaps: bool) -> Array:
    label = _joint(model, x, gaps).argmax(axis=1)
    return label if model.family.noise is None else namespace(label).where(label == len(model.means), NOISE, label)


def responsibilities(model: Mixture, x: Array, gaps: bool) -> Array:
    return normalise(_joint(model, x, gaps))[0]


def _uncertainty(model: Mixture, x: Array, gaps: bool) -> Array:
    return 1.0 - normalise(_joint(model, x, gaps))[0].max(axis=1)


def _log_density(model: Mixture, x: Array, gaps: bool) -> Array:
    return normalise(_joint(model, x, gaps))[1]


def _mahalanobis(model: Mixture, x: Array, gaps: bool) -> Array:

    def ask(x: Array) -> Array:
        within, frame = framed(model, x.dtype)
        nothing = np.zeros(x.shape[1])
        centred = within.covariance.centred(within.means, nothing[:1])  # of which a distance has no constant
        densities = within.observed(nothing, nothing) if gaps else centred
        return mahalanobis(x, frame, densities)

    return with_room(ask, all_finite, x)


def _with_feature_dim(found: xr.DataArray, X: Source, names: Sequence[str]) -> xr.DataArray:
    """With the dim that held the features of X, where there was one, or with their names."""
    own = [d for d in X.dims if d == "feature" or d not in found.dims] if isinstance(X, xr.DataArray) else []
    if len(own) == 1:
        found = found if own[0] == "feature" else found.rename(feature=own[0])
        return found.assign_coords({own[0]: X[own[0]]}) if own[0] in X.coords else found
    return found.assign_coords(feature=list(names)) if names else found


def _completed(model: Mixture, x: Array, gaps: bool) -> Array:
    """Rows with their conditional means where values are missing: (n, d)."""
    if not gaps:
        return x
    if model.structure.order in (Order.diagonal, Order.trace):  # what is there says which component, and no more
        expected = responsibilities(model, x, gaps) @ alongside(model.means, x)
        return namespace(x).where(namespace(x).isnan(x), expected, x)
    within, frame = framed(model, x.dtype)
    densities = within.observed(np.zeros(x.shape[1]), np.log(frame.scale))
    return suited(compiled, x).complete(x, frame, densities)
