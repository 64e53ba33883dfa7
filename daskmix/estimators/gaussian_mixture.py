"""Gaussian mixtures."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
import xarray as xr
from sklearn.base import DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from daskmix.algorithms.base import Outcome
from daskmix.algorithms.em import EM, EMState
from daskmix.algorithms.lloyd import Lloyd
from daskmix.algorithms.seeding import plus_plus, random_rows
from daskmix.block import Array
from daskmix.centroids import Centroids
from daskmix.covariance import Covariance, Diagonal, Full, Spherical, Structure, Tied
from daskmix.device import suited
from daskmix.errors import CollapsedComponentError, InputError
from daskmix.estimators.base import LEFT_OUT, Estimator, Source
from daskmix.fitting import Fit, on_sample, sample_size, sampled
from daskmix.hooks import Run
from daskmix.kernels import Frame, Order, compiled
from daskmix.kernels.reference import moments, nearest, normalise
from daskmix.mixture import Explain, Learn, Mixture, Moments, Origin
from daskmix.rows import beside
from daskmix.sampling import Sample, Summary
from daskmix.store import write_rows

STRUCTURES: dict[str, Structure] = {
    "full": Full(),
    "tied": Tied(),
    "diag": Diagonal(),
    "spherical": Spherical(),
    "VVV": Full(),
    "EEE": Tied(),
    "VVI": Diagonal(),
    "VII": Spherical(),
}
INITS = ("auto", "kmeans", "k-means++", "random", "random_from_data")
AUTO_FLOOR = 1e-6  # of each feature's variance


class GaussianMixture(DensityMixin, Estimator):
    """Gaussian mixture for data that need not fit in memory.

    Expectation-maximisation from a start found on a uniform sample of the rows. One pass looks at the data and draws
    the sample, each iteration reads every chunk once, and one more pass measures the likelihood of the parameters that
    are returned.

    Parameters
    ----------
    n_components : int
        Number of components, k.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Shape of the covariances; mclust's names VVV, EEE, VVI, VII mean the same.
    tol : float
        Stop when the mean log-likelihood of a row gains less than this; 0 goes on to a fixed point.
    reg_covar : "auto" or float
        Smoothing: the fit is that of the data convolved with N(0, reg_covar I), so that EM stays exactly monotone and
        no covariance is smaller. "auto" is 1e-6 of each feature's variance, whatever its unit.
    max_iter : int
        Most iterations of each start.
    n_init : int
        Number of starts, of which the best is kept; they share every read.
    init_params : {"auto", "kmeans", "k-means++", "random", "random_from_data"}, array or fitted model
        Where to start. "kmeans" (and "auto") is K-means on the sample; "k-means++" and "random_from_data" take centres
        from the sample, "random" random responsibilities of the sample. An array holds a label (n,) or responsibilities
        (n, k) for each row; a fitted mixture gives its parameters, a fitted K-means its centres.
    weights_init, means_init, precisions_init : arrays of scikit-learn's shapes, or None
        Explicit start. With means alone, the sample's rows go to their nearest mean.
    missing : {"raise", "drop"}
        What to do about rows that hold NaN. Rows left out get the label -2, NaN in xarray.
    warm_start : bool
        Start from the parameters of the last fit.
    random_state : int, RandomState or None
        Seed of the draws; `seed_` keeps what was drawn.
    verbose : int
        Tell each pass.
    run : Run or None
        How the fit runs; never changes the result.

    Attributes
    ----------
    weights_ : (k,) float64
    means_ : (k, d) float64, in the units of X
    covariances_, precisions_, precisions_cholesky_ : (k, d, d), (d, d), (k, d) or (k,) float64
    lower_bound_ : float
        Mean log-likelihood of a row under exactly these parameters.
    converged_ : bool
    n_iter_, n_passes_, bytes_read_ : int
        Iterations of the best start; times that every chunk was read; bytes read.
    history_ : list of dict
        One record per pass; `objective` is the smoothed mean log-likelihood, `path` how densities were evaluated.
    seed_ : int
    n_features_in_, feature_names_in_, feature_units_

    References
    ----------
    Dempster, Laird & Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1.0, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> model = GaussianMixture(2, random_state=0).fit(X)
    >>> np.sort(model.means_[:, 0]).round(6).tolist()
    [1.0, 10.0]
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float | str = "auto",
        max_iter: int = 100,
        n_init: int = 1,
        init_params: Any = "auto",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        missing: str = "raise",
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int = 0,
        run: Run | None = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.missing = missing
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.run = run

    def fit(
        self,
        X: Source,
        y: Any = None,
        sample_weight: Any = None,
        *,
        sample_dims: Any = None,
        variables: Any = None,
        labels_to: Any = None,
    ) -> Self:
        """Find the components.

        Parameters
        ----------
        X : NumPy array, pandas or Dask DataFrame, Dask array, xarray object, zarr.Array, path or URL of a Zarr store
            Rows and features. Of N-d arrays the last axis holds the features, of a Dataset the variables.
        y : ignored
        sample_weight : (n,) array, or DataArray over some of the sampled dims
            How often each row counts.
        sample_dims : sequence of str
            The dims of an xarray object that are sampled; all others hold features.
        variables : sequence of str
            The variables of a store or Dataset that are features; all by default.
        labels_to : str or path
            A Zarr store to write the labels to when the fit is done.

        Raises
        ------
        InputError, InputTypeError
            X or an option cannot be used; the message says where and what to do.
        CollapsedComponentError
            A covariance is singular and reg_covar is too small to mend it.
        BadChunkError
            A chunk of X cannot be read.
        """
        k = self._whole("n_components", 1)
        structure = STRUCTURES[self._option("covariance_type", tuple(STRUCTURES))]
        tol, max_iter, n_init = self._real("tol"), self._whole("max_iter", 0), self._whole("n_init", 1)
        if isinstance(self.init_params, str):
            self._option("init_params", INITS)
        reg_covar = None
        if isinstance(self.reg_covar, str):
            self._option("reg_covar", ("auto",))
        else:
            reg_covar = self._real("reg_covar")
        opened, fit = self._begin(X, sample_weight, sample_dims, variables, labels_to)
        self.seed_ = self._draw_seed()
        d = fit.rows.d
        parameters = k + k * d + structure.n_parameters(k, d)
        with fit:
            summary, sample = fit.survey(k, sample_size(fit.rows, k, parameters), self.seed_)
            frame = _fitting_frame(summary, structure, fit.rows.dtype)
            floor = _floor(summary, reg_covar) * frame.scale**2
            em = EM(frame, fit.rows.dtype, floor, tol, max_iter)
            start = _Start(self, k, structure, fit, em, summary, sample)
            models = start.models(n_init)
            ended = fit.run([em] * len(models), [em.start(model) for model in models], "em", "log-likelihood")
        self._keep(_best(ended), frame, summary.mass)
        self._warn()
        self._remember(fit)
        if labels_to is not None:
            write_rows(self.predict(opened, sample_dims=sample_dims), labels_to)
        return self

    def _keep(self, best: EMState, frame: Frame, mass: float) -> None:
        model = best.model.rescaled(1.0 / frame.scale, frame.leave(best.model.means))
        self._set_parameters(model.weights, model.means, model.covariance)
        self.lower_bound_ = best.score / mass
        self.converged_ = best.outcome is Outcome.converged
        self.n_iter_ = best.n_iter
        self._mass, self._certainty = mass, best.certainty

    def _set_parameters(self, weights: Array, means: Array, covariance: Covariance) -> None:
        self.weights_, self.means_ = weights, means
        self.covariances_ = covariance.values
        self.precisions_cholesky_ = covariance.factors
        self.precisions_ = covariance.precisions()

    def _warn(self) -> None:
        if not self.converged_:
            warnings.warn(
                f"the mean log-likelihood still gained more than tol={self.tol} after {self.n_iter_} iterations; "
                "raise max_iter or tol, or go on with warm_start=True",
                ConvergenceWarning,
                stacklevel=3,
            )

    # --- questions to a fitted model ----------------------------------------------------------------------------------

    def fit_predict(self, X: Source, y: Any = None, sample_weight: Any = None, **kwargs: Any) -> Any:
        """Fit, then the label of each row."""
        self.fit(X, y, sample_weight, **kwargs)
        return self.predict(X, sample_dims=kwargs.get("sample_dims"), variables=kwargs.get("variables"))

    def predict(self, X: Source, *, sample_dims: Any = None, variables: Any = None) -> Any:
        """The most probable component of each row: int32 (n,), in the type of X and lazy where X is; -2 if left out."""
        check_is_fitted(self)
        attrs = (("long_name", "component"), ("n_components", len(self.weights_)))
        function = self._function("label", partial(_labels, self._model()), np.int32, LEFT_OUT, attrs=attrs)
        return self._answer(X, function, sample_dims, variables)

    def predict_proba(self, X: Source, *, sample_dims: Any = None, variables: Any = None) -> Any:
        """Responsibilities: probability of each component given the row, (n, k), in the type of X."""
        check_is_fitted(self)
        k = len(self.weights_)
        of_rows = partial(_responsibilities, self._model())
        function = self._function("probability", of_rows, np.float64, width=k, over="component")
        return self._answer(X, function, sample_dims, variables)

    def uncertainty(self, X: Source, *, sample_dims: Any = None, variables: Any = None) -> Any:
        """One minus the largest responsibility of each row: (n,), in the type of X."""
        check_is_fitted(self)
        function = self._function("uncertainty", partial(_uncertainty, self._model()), np.float64)
        return self._answer(X, function, sample_dims, variables)

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

    def bic(self, X: Source = None, sample_weight: Any = None, **where: Any) -> float:
        """Bayesian information criterion, smaller is better (Schwarz 1978); of the fit's own rows without X."""
        score, mass, _ = self._totals(X, sample_weight, where)
        return float(-2 * score + self._n_parameters() * np.log(mass))

    def aic(self, X: Source = None, sample_weight: Any = None, **where: Any) -> float:
        """Akaike information criterion, smaller is better (Akaike 1974); of the fit's own rows without X."""
        score, _, _ = self._totals(X, sample_weight, where)
        return float(-2 * score + 2 * self._n_parameters())

    def icl(self, X: Source = None, sample_weight: Any = None, **where: Any) -> float:
        """Integrated completed likelihood, smaller is better (Biernacki, Celeux & Govaert 2000).

        BIC plus twice the sum of -log of each row's largest responsibility; of the fit's own rows without X.
        """
        score, mass, certainty = self._totals(X, sample_weight, where)
        return float(-2 * score + self._n_parameters() * np.log(mass) - 2 * certainty)

    def _totals(self, X: Source, weight: Any, where: Any) -> tuple[float, float, float]:
        """Sum of log-likelihood, weight and log of the largest responsibility."""
        check_is_fitted(self)
        if X is None:
            return self.lower_bound_ * self._mass, self._mass, self._certainty
        sums = self._measured(X, weight, where.get("sample_dims"), where.get("variables"))
        return sums.score, float(sums.mass.sum()), sums.certainty

    def _measured(self, X: Source, weight: Any, sample_dims: Any, variables: Any) -> Moments:
        check_is_fitted(self)
        fit = Fit(self._rows(self._opened(X, variables), weight, sample_dims, reset=False))
        model, frame = _framed(self._model(), fit.rows.dtype)
        measured: Moments = fit.ask(Explain(model, frame, model.path(fit.rows.dtype), np.zeros(fit.rows.d)), "score")
        if not measured.mass.sum() > 0:
            raise InputError("no row is left to score: X is empty, or every row is missing or of weight zero")
        return measured

    def sample(self, n_samples: int = 1) -> tuple[Array, Array]:
        """Rows drawn from the mixture, (n, d), and their components, (n,)."""
        check_is_fitted(self)
        if n_samples < 1:
            raise InputError(f"n_samples={n_samples} must be at least 1")
        rng = check_random_state(self.random_state)
        counts = rng.multinomial(n_samples, self.weights_ / self.weights_.sum())
        k, d = self.means_.shape
        dense = self._model().covariance.dense(k, d)
        drawn = [rng.multivariate_normal(m, c, n) for m, c, n in zip(self.means_, dense, counts, strict=True)]
        return np.concatenate(drawn), np.repeat(np.arange(k), counts)

    def to_xarray(self) -> xr.Dataset:
        """Weights, means and covariances as a Dataset over component, feature and feature_2."""
        check_is_fitted(self)
        k, d = self.means_.shape
        names = self._feature_coords()
        coords = {**names, **({"feature_2": names["feature"]} if names else {})}
        return xr.Dataset(
            {
                "weights": ("component", self.weights_),
                "means": (("component", "feature"), self.means_),
                "covariances": (("component", "feature", "feature_2"), self._model().covariance.dense(k, d)),
            },
            coords=coords,
            attrs={
                "covariance_type": self.covariance_type,
                "lower_bound": self.lower_bound_,
                "n_iter": self.n_iter_,
                "n_passes": self.n_passes_,
            },
        )

    def to_sklearn(self) -> Any:
        """The same model as a fitted `sklearn.mixture.GaussianMixture`."""
        from sklearn.mixture import GaussianMixture as Peer

        check_is_fitted(self)
        kind = {Full: "full", Tied: "tied", Diagonal: "diag", Spherical: "spherical"}[type(self._structure())]
        peer = Peer(len(self.weights_), covariance_type=kind, tol=self.tol, max_iter=self.max_iter)
        for name in (
            "weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_",
            "converged_", "n_iter_", "lower_bound_", "n_features_in_",
        ):  # fmt: skip
            setattr(peer, name, getattr(self, name))
        if hasattr(self, "feature_names_in_"):
            peer.feature_names_in_ = self.feature_names_in_
        return peer

    def _structure(self) -> Structure:
        return STRUCTURES[self.covariance_type]

    def _model(self) -> Mixture:
        structure = self._structure()
        covariance = structure.covariance(self.covariances_, self.precisions_cholesky_)
        return Mixture(self.weights_, self.means_, covariance, structure)

    def _n_parameters(self) -> int:
        return self._model().n_parameters()

    def _row_bytes(self) -> int:
        k, d = self.means_.shape
        # Products of features are gathered, multiplied and joined: four arrays of them at a time.
        products = 4 * d * (d + 1) // 2 if isinstance(self._structure(), Full) else 4 * d
        return 8 * (3 * k + 3 * d + products)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "means_")

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "drop"
        return tags


def _fitting_frame(summary: Summary, structure: Structure, dtype: np.dtype) -> Frame:
    variance = summary.variance
    if structure.common_scale:
        variance = np.full_like(variance, variance.mean())
    return Frame.of(summary.mean, np.sqrt(variance), dtype)


def _floor(summary: Summary, reg_covar: float | None) -> Array:
    """The smoothing of each feature: (d,), in the units of X."""
    if reg_covar is not None:
        return np.full(len(summary.mean), reg_covar)
    variance = summary.variance
    # What rounding leaves of a constant feature's variance is not one; any number will do in its place.
    varies = variance > (1e-12 * np.maximum(np.abs(summary.low), np.abs(summary.high))) ** 2
    return AUTO_FLOOR * np.where(varies, variance, 1.0)


def _best(ended: Any) -> EMState:
    done = [state for state in ended if state.outcome is not Outcome.failed]
    if not done:
        raise CollapsedComponentError(ended[0].why)
    best: EMState = max(done, key=lambda state: state.score)
    return best


class _Start:
    """Where the starts of one fit come from."""

    def __init__(
        self, face: GaussianMixture, k: int, structure: Structure, fit: Fit, em: EM, summary: Summary, sample: Sample
    ) -> None:
        self.face, self.k, self.structure, self.fit, self.em = face, k, structure, fit, em
        self.frame, self.sample = em.frame, sample
        self.variance = np.where(summary.variance > 0, summary.variance, 1.0) * em.frame.scale**2
        self.x = em.frame.enter(sample.x.astype(np.float64))

    def models(self, n_init: int) -> list[Mixture]:
        """One mixture for each start, in the frame."""
        face, init = self.face, self.face.init_params
        if face.warm_start and hasattr(face, "means_"):
            return [self._of_model(face)]
        weights, means, precisions = self._explicit()
        if hasattr(init, "fit"):
            check_is_fitted(init)
            if hasattr(init, "covariances_") and STRUCTURES.get(init.covariance_type) == self.structure:
                return [self._overridden(self._of_model(init), weights, means, precisions)]
            centres = init.means_ if hasattr(init, "means_") else init.cluster_centers_
            first = self._near(self.frame.enter(self._shaped("init_params", centres, (self.k, self.fit.rows.d))))
            return [self._overridden(first, weights, means, precisions)]
        if not isinstance(init, str):
            return [self._overridden(self._of_shares(np.asarray(init)), weights, means, precisions)]
        if weights is not None and means is not None and precisions is not None:
            return [Mixture(weights, means, precisions, self.structure)]
        if means is not None:
            return [self._overridden(self._near(means), weights, means, precisions)]
        seeds = [np.random.default_rng([face.seed_, start]) for start in range(n_init)]
        return [self._overridden(self._drawn(init, rng), weights, means, precisions) for rng in seeds]

    def _explicit(self) -> tuple[Array | None, Array | None, Covariance | None]:
        k, d = self.k, self.fit.rows.d
        weights = means = precisions = None
        if self.face.weights_init is not None:
            weights = self._shaped("weights_init", self.face.weights_init, (k,))
            if (weights < 0).any() or not np.isclose(weights.sum(), 1.0):
                raise InputError(f"weights_init sums to {weights.sum():.6g}; weights must be positive and sum to 1")
        if self.face.means_init is not None:
            means = self.frame.enter(self._shaped("means_init", self.face.means_init, (k, d)))
        if self.face.precisions_init is not None:
            shape = {"full": (k, d, d), "pooled": (d, d), "diagonal": (k, d), "trace": (k,)}[self.structure.order.value]
            given = self._shaped("precisions_init", self.face.precisions_init, shape)
            matrices = self.structure.order in (Order.full, Order.pooled)
            if not np.all(np.linalg.eigvalsh(given) > 0 if matrices else given > 0):
                raise InputError("precisions_init must be positive definite")
            precisions = self.structure.from_precisions(given).rescaled(self.frame.scale)
        return weights, means, precisions

    @staticmethod
    def _shaped(name: str, given: Any, shape: tuple[int, ...]) -> Array:
        values = np.asarray(given, dtype=np.float64)
        if values.shape != shape:
            raise InputError(f"{name} has shape {values.shape}, but {shape} is needed")
        if not np.isfinite(values).all():
            raise InputError(f"{name} holds NaN or infinity; every value must be finite")
        return values

    def _overridden(
        self, model: Mixture, weights: Array | None, means: Array | None, covariance: Covariance | None
    ) -> Mixture:
        return replace(
            model,
            weights=model.weights if weights is None else weights,
            means=model.means if means is None else means,
            covariance=model.covariance if covariance is None else covariance,
        )

    def _of_model(self, fitted: Any) -> Mixture:
        means = self._shaped("the start's means", fitted.means_, (self.k, self.fit.rows.d))
        covariance = self.structure.covariance(fitted.covariances_, fitted.precisions_cholesky_)
        model = Mixture(fitted.weights_, means, covariance, self.structure)
        return model.rescaled(self.frame.scale, self.frame.enter(means))

    def _drawn(self, init: str, rng: np.random.Generator) -> Mixture:
        if init == "random":
            share = rng.random((len(self.x), self.k))
            return self._of_sample(share / share.sum(axis=1, keepdims=True))
        if init == "random_from_data":
            return self._near(random_rows(self.x, self.sample.w, self.k, rng))
        centres = plus_plus(self.x, self.sample.w, self.k, rng)
        if init == "k-means++":
            return self._near(centres)
        # K-means measures in the units of X, as scikit-learn's does.
        units = 1.0 / self.frame.scale
        plain = Frame(np.zeros(len(units)), np.ones(len(units)))
        lloyd = Lloyd(plain, 1e-4 * float((self.variance * units**2).mean()))
        centres = plus_plus(self.x * units, self.sample.w, self.k, rng)
        ended = on_sample(lloyd, lloyd.start(Centroids(centres)), sampled(self.sample, self.x * units))
        return self._near(ended.model.centres, units)

    def _near(self, centres: Array, units: Array | float = 1.0) -> Mixture:
        """Every row of the sample to its nearest centre."""
        cluster, _ = nearest(self.x * units, centres)
        return self._of_sample((cluster[:, None] == np.arange(self.k)).astype(np.float64))

    def _of_sample(self, share: Array) -> Mixture:
        share = share * self.sample.w[:, None]
        return self._estimated(Moments(*moments(self.x, share, self.structure.order), 0.0, 0.0, Origin()))

    def _of_shares(self, given: Array) -> Mixture:
        total = self.fit.rows.total
        if given.shape not in ((total,), (total, self.k)):
            raise InputError(
                f"init_params has shape {given.shape}; pass labels ({total},) or responsibilities ({total}, {self.k})"
            )
        plain, self.fit.rows = self.fit.rows, beside(self.fit.rows, given)
        learn = Learn(self.k, self.structure.order, self.frame, labelled=given.ndim == 1)
        answer = self.fit.ask(learn, "labels")
        self.fit.rows = plain
        return self._estimated(answer)

    def _estimated(self, sums: Moments) -> Mixture:
        empty = sums.mass <= 0
        if empty.any():
            # A start without rows: anywhere among the others, as wide as the data.
            sums = replace(sums, mass=np.where(empty, 1e-3 * sums.mass.sum() / self.k, sums.mass))
        floor = self.em.floor
        try:
            return sums.estimate(self.structure, floor)
        except CollapsedComponentError:
            # A start may be widened: it is only a start.
            return sums.estimate(self.structure, np.maximum(floor, 1e-3 * self.variance))


def _framed(model: Mixture, dtype: np.dtype) -> tuple[Mixture, Frame]:
    """A model in the units of X, in a frame of its own for rows of this type."""
    k, d = model.shape
    spread = np.sqrt(np.diagonal(model.covariance.dense(k, d), axis1=1, axis2=2).mean(axis=0))
    if model.structure.common_scale:
        spread = np.full(d, np.sqrt((spread**2).mean()))
    frame = Frame.of(model.weights @ model.means, spread, dtype)
    return model.rescaled(frame.scale, frame.enter(model.means)), frame


def _joint(model: Mixture, x: Array) -> Array:
    """log p(x, k), in units of X: (n, k)."""
    framed, frame = _framed(model, x.dtype)
    log_scale = float(np.log(frame.scale).sum())
    densities = framed.densities(framed.path(x.dtype), np.zeros(x.shape[1]), log_scale)
    return suited(compiled, x).joint(x, frame, densities).astype(np.float64)


def _labels(model: Mixture, x: Array) -> Array:
    return _joint(model, x).argmax(axis=1)


def _responsibilities(model: Mixture, x: Array) -> Array:
    return normalise(_joint(model, x))[0]


def _uncertainty(model: Mixture, x: Array) -> Array:
    return 1.0 - normalise(_joint(model, x))[0].max(axis=1)


def _log_density(model: Mixture, x: Array) -> Array:
    return normalise(_joint(model, x))[1]
