"""What can be asked of a fitted Gaussian mixture beside its densities: parts of it, and how sure it is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import xarray as xr
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from daskmix.algorithms.acceleration import Accelerated
from daskmix.algorithms.base import Outcome
from daskmix.algorithms.contrasting import Contrasting, ContrastState, splits
from daskmix.algorithms.em import EM, LEAST_NOISE
from daskmix.algorithms.resampling import Redrawn, Resampled, Resampling
from daskmix.block import Array
from daskmix.derived import Draws, conditional, marginal
from daskmix.errors import CollapsedComponentError, CollapsedComponentWarning, FeatureError, InputError, whole
from daskmix.estimators.base import Source
from daskmix.estimators.mixture_base import KINDS, MixtureEstimator, framed
from daskmix.estimators.mixture_held import held_of, shaped
from daskmix.estimators.others import of_same_rows
from daskmix.fitting import Fit
from daskmix.mixture import Mixture
from daskmix.rows import with_known
from daskmix.sharing import SOFT
from daskmix.sources.zarr import Stored

if TYPE_CHECKING:
    from daskmix.estimators.gaussian_mixture import GaussianMixture

LEAST_RATIO = 0.01  # of a log-likelihood: how near to its maximum a ratio's must come


class AfterFit(MixtureEstimator):
    """Base of the Gaussian mixture; not for use on its own."""

    algorithm: str
    nu: Any
    prior: Any
    n_features_in_: int
    seed_: int
    _mass: float
    _smoothing: Array

    def standard_errors(
        self,
        X: Source,
        sample_weight: Any = None,
        *,
        y: Any = None,
        n_replicates: int = 100,
        sample_dims: Any = None,
        variables: Any = None,
    ) -> xr.Dataset:
        """Standard errors of weights, means and covariances by the bootstrap, whose replicates share every pass.

        Each replicate counts every row as often as a Poisson draw of mean 1 says, which depends on the row's number
        alone, and goes on from this model, so that components keep their places (O'Hagan, Murphy, Scrucca & Gormley
        2019, section 3).

        Parameters
        ----------
        X, sample_weight, y, sample_dims, variables
            As for `fit`.
        n_replicates : int
            At least 2; each costs about as much computing as a fit from this model.

        Returns
        -------
        xr.Dataset
            As `to_xarray` gives it; `n_replicates` says how many replicates were counted: one with a collapsed
            component is not.

        Raises
        ------
        InputError, InputTypeError
            X cannot be used; the fit had a prior, nu, a temperature or another algorithm than EM.
        CollapsedComponentError
            Fewer than two replicates are left.
        """
        fit, model, em = self._replicated(X, sample_weight, n_replicates, 2, sample_dims, variables, y)
        frame, algorithm = em.frame, Accelerated(em, self._least_gap())
        seeds = range(self.seed_ + 1, self.seed_ + 1 + n_replicates)
        replicates = [Resampling(algorithm, partial(Resampled, seed=seed)) for seed in seeds]
        with fit:
            ended = fit.run(replicates, [algorithm.start(model)] * len(replicates), "bootstrap", "log-likelihood")
        done = [state.model for state in ended if state.outcome is not Outcome.failed]
        if len(done) < 2:
            raise CollapsedComponentError("components collapsed in nearly all replicates; ask for fewer components")
        return self._spread([m.rescaled(1.0 / frame.scale, frame.leave(m.means)) for m in done])

    def likelihood_ratio(
        self,
        X: Source,
        sample_weight: Any = None,
        *,
        n_replicates: int = 99,
        sample_dims: Any = None,
        variables: Any = None,
    ) -> xr.Dataset:
        """Whether X needs one component more than this model has: the bootstrap likelihood ratio test.

        Twice what the log-likelihood gains by a component more of the same structure, against what it gains in
        replicates that have none: their rows are drawn from this model (McLachlan 1987, On bootstrapping the likelihood
        ratio test statistic for the number of components in a normal mixture). A row depends on the seed of the fit and
        its number alone and is drawn anew in each pass, with the weight and the missing values of the row of X, so
        nothing is stored, and the fits to X and to all replicates share every pass.

        X and replicates are fitted alike, for otherwise the test would measure the difference: the smaller mixture goes
        on from this model, the larger one from splits of it, each with one component cut in two across a principal
        axis: up to sixteen, of which every six passes the likelier half goes on. With equal weights the larger mixture
        does not contain the smaller one, so that the statistic may be negative, of X and of replicates alike.

        Parameters
        ----------
        X, sample_weight, sample_dims, variables
            As for `fit`; the rows of the fit. The p-value is the same for any multiple of the weights.
        n_replicates : int
            At least 1; each pass draws all rows for each, which takes longer than to look at them: about 35 ns for a
            value, and as many passes as the slowest fit.

        Returns
        -------
        xr.Dataset
            `statistic`, `replicates` (replicate), the statistic of each, `p_value`, the share of statistics at least as
            large, that of X among them, and `log_likelihood` (n_components) of X. Attributes say how many replicates
            were counted (`n_replicates`: one with a collapsed component is not), how many fits used up `max_iter`
            (`n_exhausted`), and how many passes over X were shared (`n_passes`).

        Raises
        ------
        InputError, InputTypeError
            X cannot be used.
        CollapsedComponentError
            The larger mixture collapses on X, or either does on every replicate.
        """
        if self.fixed is not None:
            raise InputError("fixed= holds parameters, and says nothing of those of one component more; fit without it")
        if self.max_iter == 0:
            raise InputError("max_iter=0 fits nothing, and so tests nothing; pass more iterations")
        if self.semi_supervised:
            raise InputError("replicates have no rows whose component is known; fit with semi_supervised=False to test")
        fit, model, em = self._replicated(X, sample_weight, n_replicates, 1, sample_dims, variables)
        # Two likelihoods nearly cancel: no products in float32, and no gap that would be seen in their difference.
        gap_tol = min(self._least_gap(), max(LEAST_NOISE, LEAST_RATIO / self._mass))
        algorithm = Accelerated(replace(em, dtype=np.dtype(np.float64)), gap_tol)
        contrast = Contrasting(algorithm, splits(model, em.floor))
        every = self.n_features_in_ + 1  # seeds of the draws of one replicate
        seeds = range(self.seed_ + 1, self.seed_ + 1 + n_replicates * every, every)
        drawn = [Resampling(contrast, partial(Redrawn, draws=Draws(self._model(), seed))) for seed in seeds]
        with fit, warnings.catch_warnings():
            # Of starts that are given up, and of replicates, it says nothing about X.
            warnings.simplefilter("ignore", CollapsedComponentWarning)
            contrasts = [contrast, *drawn]
            ended = fit.run(contrasts, [contrast.start(model)] * len(contrasts), "likelihood ratio", "log-likelihood")
        if ended[0].outcome is Outcome.exhausted:
            warnings.warn(
                f"the fits to X used up max_iter={self.max_iter}, so that the statistic may be too small; raise it",
                ConvergenceWarning,
                stacklevel=2,
            )
        return _tested(ended, len(self.weights_), len(fit.history))

    def _replicated(
        self, X: Source, weight: Any, n_replicates: int, least: int, sample_dims: Any, variables: Any, y: Any = None
    ) -> tuple[Fit, Mixture, EM]:
        """A fit to replicates of X that goes on from this model, in a frame of its own."""
        check_is_fitted(self)
        whole("n_replicates", n_replicates, least)
        self._refuse_tails("the bootstrap")
        if self.prior is not None or self.algorithm != "em" or self._sharings()[-1] != SOFT:
            raise InputError('the bootstrap replicates fits by algorithm="em" at temperature 1 without a prior')
        opened, fit = self._begin(X, weight, sample_dims, variables, history=())
        fit = self._with_known(fit, opened, y, len(self.means_), sample_dims)
        model, frame = framed(self._model(), fit.rows.dtype)
        model = replace(model, family=replace(model.family, held=held_of(model, self.fixed)))
        return fit, model, EM(frame, fit.rows.dtype, self._smoothing * frame.scale**2, 0.0, int(self.max_iter))

    def _with_known(self, fit: Fit, opened: Source, y: Any, k: int, sample_dims: Any) -> Fit:
        """The fit to rows of which some are known to be of a component."""
        if y is None or not self.semi_supervised:
            return fit
        if self.on_collapse == "drop":
            raise InputError('on_collapse="drop" would change the numbers of components that y names; pass "restart"')
        lazy = opened.lazy if isinstance(opened, Stored) else opened
        y = y.compute() if fit.rows.in_memory and dask.is_dask_collection(y) else y
        found, _ = of_same_rows("y", y, fit.rows, lazy, sample_dims)
        fit.rows = with_known(fit.rows, found, k)
        return fit

    def _spread(self, replicates: Sequence[Mixture]) -> xr.Dataset:
        """Standard deviations of parameters, as `to_xarray` names them."""
        like = self.to_xarray()
        each = {
            "weights": [m.own_weights for m in replicates],
            "means": [m.means for m in replicates],
            "covariances": [m.covariance.dense(*m.shape) for m in replicates],
        }
        if hasattr(self, "noise_weight_"):
            each["noise_weight"] = [m.weights[-1] for m in replicates]
        spread = {name: (like[name].dims, _deviations(values)) for name, values in each.items()}
        return xr.Dataset(spread, coords=like.coords, attrs={"n_replicates": len(replicates)})

    def marginal(self, features: Any) -> GaussianMixture:
        """The mixture of some features, given by name or number, in this order.

        It is fitted, but its likelihood is unknown (NaN) until `score(X)` measures it. Of a type of covariances that
        says how components are alike it keeps the form alone: "full", "tied", "diag" or "spherical".

        Raises
        ------
        FeatureError
            There is no such feature.
        """
        check_is_fitted(self)
        numbers = self._feature_numbers(features)
        return self._derived(marginal(self._model(), numbers), numbers)

    def condition(self, values: Mapping[Any, float]) -> GaussianMixture:
        """The mixture of the other features, where those named, or numbered, in `values` have these values.

        It is fitted as that of `marginal` is.

        Raises
        ------
        FeatureError, InputError
            There is no such feature, or no other; or a value is not finite.
        """
        check_is_fitted(self)
        self._refuse_tails("the mixture of some features where others have given values")
        numbers = self._feature_numbers(list(values))
        at = shaped("values", list(values.values()), (len(numbers),))
        rest = np.setdiff1d(np.arange(self.n_features_in_), numbers)
        if len(rest) == 0:
            raise InputError(f"values= names all {len(numbers)} features; leave those out that are asked about")
        return self._derived(conditional(self._model(), numbers, at), rest)

    def _feature_numbers(self, features: Any) -> Array:
        """Which features these names or numbers are."""
        names = list(getattr(self, "feature_names_in_", ()))
        numbers: list[int] = []
        for feature in [features] if isinstance(features, str | Integral) else features:
            number = names.index(feature) if feature in names else feature
            if isinstance(number, bool) or number not in range(self.n_features_in_):
                known = ", ".join(map(str, names[:8])) or f"0 to {self.n_features_in_ - 1}"
                raise FeatureError(f"the model has no feature {feature!r}; it has {known}")
            numbers.append(int(number))
        if not numbers or len(set(numbers)) < len(numbers):
            raise FeatureError(f"features {features!r} must be at least one, and each of them once")
        return np.array(numbers)

    def _derived(self, mixture: Mixture, features: Array) -> GaussianMixture:
        """A fitted estimator of what follows from this mixture."""
        from daskmix.estimators.gaussian_mixture import GaussianMixture  # which is made of this

        kind = KINDS[mixture.structure.order]
        noise = mixture.family.noise
        model = GaussianMixture(
            mixture.shape[0], covariance_type=kind, noise=noise is not None,
            nu=self.nu if isinstance(self.nu, str) else mixture.nu, missing=self.missing,
            random_state=self.random_state, run=self.run,
        )  # fmt: skip
        if noise is not None:
            model.noise_box_ = np.stack([noise.low, noise.high])
        model._set_parameters(mixture.weights, mixture.means, mixture.covariance, mixture.nu)
        model.lower_bound_, model._mass, model._certainty = np.nan, self._mass, np.nan
        model._smoothing = np.zeros(len(features))
        self._hand_over(model)
        model.n_features_in_ = len(features)
        for name in ("feature_names_in_", "feature_units_"):
            if hasattr(self, name):
                own = getattr(self, name)
                setattr(model, name, own[features] if isinstance(own, np.ndarray) else tuple(own[f] for f in features))
        return model


def _deviations(values: Sequence[Array]) -> Array:
    """Standard deviation among replicates, whose squares may be beyond all numbers."""
    largest = np.abs(values).max() or 1.0
    spread: Array = largest * np.std(np.asarray(values) / largest, axis=0, ddof=1)
    return spread


def _tested(ended: Sequence[ContrastState], k: int, passes: int) -> xr.Dataset:
    """What contrasts on the rows and on their replicates say of k components and one more."""
    of_rows, *others = ended
    done = [state for state in others if state.outcome is not Outcome.failed]
    if of_rows.outcome is Outcome.failed or not done:
        why = of_rows.why or others[0].why
        raise CollapsedComponentError(f"{k + 1} components cannot be fitted: {why}")
    statistic, *replicates = (2.0 * (more - few) for few, more in (state.scores for state in (of_rows, *done)))
    beyond = int(np.sum(np.array(replicates) >= statistic))
    return xr.Dataset(
        {
            "statistic": ((), statistic),
            "p_value": ((), (1 + beyond) / (1 + len(done))),
            "replicates": ("replicate", np.array(replicates)),
            "log_likelihood": ("n_components", np.array(of_rows.scores)),
        },
        coords={"n_components": [k, k + 1]},
        attrs={
            "n_replicates": len(done),
            "n_exhausted": sum(state.outcome is Outcome.exhausted for state in (of_rows, *done)),
            "n_passes": passes,
        },
    )
