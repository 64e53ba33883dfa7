"""What can be asked of a fitted Gaussian mixture beside its densities: parts of it, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from daskmix.algorithms.acceleration import Accelerated
from daskmix.algorithms.base import Outcome
from daskmix.algorithms.em import EM
from daskmix.algorithms.resampling import Resampling
from daskmix.block import Array
from daskmix.derived import conditional, marginal
from daskmix.errors import CollapsedComponentError, FeatureError, InputError
from daskmix.estimators.base import Source
from daskmix.estimators.mixture_base import KINDS, MixtureEstimator, framed
from daskmix.estimators.mixture_held import held_of, shaped
from daskmix.fitting import Fit
from daskmix.mixture import SOFT, Mixture

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
