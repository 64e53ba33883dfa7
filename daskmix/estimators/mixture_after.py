"""What can be asked of a fitted Gaussian mixture beside its densities: parts of it, what is missing, how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from daskmix.algorithms.acceleration import Accelerated
from daskmix.algorithms.base import Outcome
from daskmix.algorithms.em import EM
from daskmix.algorithms.resampling import Resampling
from daskmix.arrays import alongside, namespace
from daskmix.block import Array, Missing
from daskmix.derived import conditional, marginal
from daskmix.device import suited
from daskmix.errors import CollapsedComponentError, FeatureError, InputError
from daskmix.estimators.base import Source
from daskmix.estimators.mixture_base import KINDS, MixtureEstimator, framed, responsibilities
from daskmix.estimators.mixture_held import held_of, shaped
from daskmix.fitting import Fit
from daskmix.kernels import Order, compiled
from daskmix.mixture import SOFT, Mixture
from daskmix.sources.dask import is_dask_frame

if TYPE_CHECKING:
    from daskmix.estimators.gaussian_mixture import GaussianMixture


class AfterFit(MixtureEstimator):
    """Base of the Gaussian mixture; not for use on its own."""

    algorithm: str
    prior: Any
    n_features_in_: int
    seed_: int
    _mass: float
    _smoothing: Array

    def impute(self, X: Source, *, sample_dims: Any = None, variables: Any = None) -> Any:
        """Rows with what the mixture expects where a value is missing, given those that are there: (n, d).

        In the type of X and lazy where X is; of a Dataset a DataArray with the dim "feature". Rows of which nothing is
        there stay NaN. Ghahramani & Jordan (1994), Supervised learning from incomplete data via an EM approach.
        """
        check_is_fitted(self)
        d, dtype = self.means_.shape[1], np.result_type(getattr(X, "dtype", np.float64), np.float32)
        function = self._function("imputed", partial(_completed, self._model()), dtype, width=d, over="feature")
        found = self._answer(X, replace(function, missing=Missing.observe), sample_dims, variables)
        names = [str(name) for name in getattr(self, "feature_names_in_", ())]
        if isinstance(found, xr.DataArray):
            return _with_feature_dim(found, X, names)
        if is_dask_frame(found) and names:
            return found.rename(columns=dict(zip(found.columns, names, strict=True)))
        return found

    def standard_errors(
        self,
        X: Source,
        sample_weight: Any = None,
        *,
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
        X, sample_weight, sample_dims, variables
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
            X cannot be used.
        CollapsedComponentError
            Fewer than two replicates are left.
        """
        check_is_fitted(self)
        if isinstance(n_replicates, bool) or not isinstance(n_replicates, Integral) or n_replicates < 2:
            raise InputError(f"n_replicates={n_replicates!r} must be a whole number, at least 2")
        if self.prior is not None or self.algorithm != "em" or self._sharings()[-1] != SOFT:
            raise InputError('the bootstrap replicates fits by algorithm="em" at temperature 1 without a prior')
        fit = Fit(self._rows(self._opened(X, variables), sample_weight, sample_dims, reset=False))
        model, frame = framed(self._model(), fit.rows.dtype)
        model = replace(model, family=replace(model.family, held=held_of(model, self.fixed)))
        em = EM(frame, fit.rows.dtype, self._smoothing * frame.scale**2, 0.0, int(self.max_iter))
        algorithm = Accelerated(em, self._least_gap())
        replicates = [Resampling(algorithm, self.seed_ + 1 + number) for number in range(n_replicates)]
        with fit:
            ended = fit.run(replicates, [algorithm.start(model)] * len(replicates), "bootstrap", "log-likelihood")
        done = [state.model for state in ended if state.outcome is not Outcome.failed]
        if len(done) < 2:
            raise CollapsedComponentError("components collapsed in nearly all replicates; ask for fewer components")
        return self._spread([m.rescaled(1.0 / frame.scale, frame.leave(m.means)) for m in done])

    def _spread(self, replicates: Sequence[Mixture]) -> xr.Dataset:
        """Standard deviations of parameters, as `to_xarray` names them."""
        like = self.to_xarray()
        each = {
            "weights": [m.own_weights for m in replicates],
            "means": [m.means for m in replicates],
            "covariances": [m.covariance.dense(*m.shape) for m in replicates],
        }
        if self.noise:
            each["noise_weight"] = [m.weights[-1] for m in replicates]
        spread = {name: (like[name].dims, np.std(values, axis=0, ddof=1)) for name, values in each.items()}
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
            mixture.shape[0], covariance_type=kind, noise=noise is not None, missing=self.missing,
            random_state=self.random_state, run=self.run,
        )  # fmt: skip
        if noise is not None:
            model.noise_box_ = np.stack([noise.low, noise.high])
        model._set_parameters(mixture.weights, mixture.means, mixture.covariance)
        model.lower_bound_, model._mass, model._certainty = np.nan, self._mass, np.nan
        model._smoothing = np.zeros(len(features))
        self._hand_over(model)
        model.n_features_in_ = len(features)
        for name in ("feature_names_in_", "feature_units_"):
            if hasattr(self, name):
                own = getattr(self, name)
                setattr(model, name, own[features] if isinstance(own, np.ndarray) else tuple(own[f] for f in features))
        return model


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
