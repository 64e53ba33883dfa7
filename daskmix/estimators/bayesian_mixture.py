"""Bayesian Gaussian mixtures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from daskmix.algorithms.base import Outcome
from daskmix.algorithms.variational import Variational, VariationalState
from daskmix.block import Array
from daskmix.errors import CollapsedComponentError, InputError
from daskmix.estimators.base import Source
from daskmix.estimators.mixture_base import KINDS, MixtureEstimator
from daskmix.estimators.mixture_held import shaped
from daskmix.estimators.mixture_start import ALIASES, MixtureStart, positive, spread
from daskmix.fitting import Fit
from daskmix.hooks import Run
from daskmix.kernels import Frame, Order
from daskmix.mixture import Mixture
from daskmix.moments import Origin
from daskmix.sampling import Summary
from daskmix.variational import Posterior, Prior

PROCESS, DISTRIBUTION = "dirichlet_process", "dirichlet_distribution"


class BayesianGaussianMixture(MixtureEstimator):
    """Bayesian Gaussian mixture for data that need not fit in memory, by variational inference.

    Weights, means and covariances have the conjugate prior, and the fit finds the posterior of the same kind that is
    nearest to the true one [1]_. Components that the rows do not need keep little weight: `n_components` is the most
    that there may be. Priors, attributes and the bound are scikit-learn's. One pass looks at the data and draws the
    sample, one more measures their covariance where `covariance_prior` is left to it and has correlations; each
    iteration reads every chunk once.

    Parameters
    ----------
    n_components : int
        Most components, k.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Shape of the covariances; also as "VVV", "EEE", "VVI", "VII".
    tol : float
        The iteration stops when the bound, for each row, gains less than this; scikit-learn's tol is of all rows. Where
        components overlap, those that are not needed fade slowly: to count the others take 1e-7 and a larger max_iter.
    reg_covar : "auto" or float
        Smoothing: the fit is that of the data convolved with N(0, reg_covar I). "auto" is 1e-6 of each feature's
        variance, whatever its unit.
    max_iter : int
        Most iterations of each start.
    n_init : int
        Number of starts, of which the one with the largest bound is kept; they share every read.
    init_params : {"auto", "kmeans", "k-means++", "random", "random_from_data"}, array or fitted model
        Where to start. "kmeans" (and "auto") is K-means on the sample; "k-means++" and "random_from_data" take centres
        from the sample, "random" random responsibilities of the sample. An array holds a label (n,) or responsibilities
        (n, k) for each row; a fitted mixture gives its parameters, a fitted K-means its centres.
    weight_concentration_prior_type : {"dirichlet_process", "dirichlet_distribution"}
        Prior of the weights: a stick that is broken, so that the first components take what they can [2]_, or a
        Dirichlet distribution, alike for all.
    weight_concentration_prior : positive number or None
        The smaller it is, the fewer components have weight. By default 1 / n_components.
    mean_precision_prior : positive number or None
        How many rows the prior of a mean counts for. By default 1.
    mean_prior : (d,) array or None
        By default the mean of the rows.
    degrees_of_freedom_prior : number above d - 1, or None
        How many rows the prior of a covariance counts for. By default d.
    covariance_prior : (d, d), (d,) array or number, as covariance_type has it, or None
        That many times the covariance that is expected. By default the covariance of the rows, variances of each
        feature for "diag" and their mean for "spherical", divided by the weight of all rows less one. A missing value
        counts there as one at the mean that has the variance of its feature.
    sample_size : "auto" or int
        Rows of the sample, drawn uniformly from all chunks.
    max_passes : int or None
        Most reads of every chunk, at least 2.
    missing : {"raise", "drop", "em"}
        What to do about rows that hold NaN: refuse them, leave them out, or take what is there. With "em" the posterior
        is also of the values that are missing, given each row's component, and the bound is that of the evidence of
        those that are there [3]_; otherwise as in `GaussianMixture`. Rows left out, with "em" those of which nothing is
        there, get the label -2, NaN in xarray.
    warm_start : bool
        Start from the posterior of the last fit.
    random_state : int, RandomState or None
        Seed of the draws; `seed_` keeps what was drawn.
    verbose : int
        Tell each pass.
    run : Run or None
        How the fit runs: what is kept, who is told, on which device.

    Attributes
    ----------
    weights_ : (k,) float64
        Their posterior means.
    means_ : (k, d) float64, in the units of X
    covariances_, precisions_, precisions_cholesky_ : (k, d, d), (d, d), (k, d) or (k,) float64
        `precisions_` are the posterior means.
    weight_concentration_ : (k,) or (2, k) float64
        Of the Dirichlet distribution; of a process both parameters of each piece of the stick.
    mean_precision_ : (k,) float64
    degrees_of_freedom_ : (k,) float64, or a number for "tied"
    weight_concentration_prior_, mean_precision_prior_, mean_prior_, degrees_of_freedom_prior_, covariance_prior_
        What the priors were.
    lower_bound_ : float
        Of the log evidence of all rows, less terms that do not change.
    converged_ : bool
    n_iter_, n_passes_, bytes_read_ : int
        Iterations of the best start; times that every chunk was read; bytes decoded, but for chunks that were kept.
    history_ : list of dict
        One record per pass; `Run` says what is in it. `objective` is the bound for each row.
    seed_ : int
    n_features_in_, feature_names_in_, feature_units_

    References
    ----------
    .. [1] Bishop (2006), Pattern Recognition and Machine Learning, section 10.2.
    .. [2] Blei & Jordan (2006), Variational inference for Dirichlet process mixtures.
    .. [3] Ghahramani & Beal (2001), Propagation algorithms for variational Bayesian learning: missing values are hidden
       variables as the components are.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((300, 2)) + np.repeat([[0.0], [10.0]], 150, axis=0)
    >>> model = BayesianGaussianMixture(5, weight_concentration_prior=1e-3, max_iter=300, random_state=0).fit(X)
    >>> int((model.weights_ > 0.01).sum())
    2
    """

    accelerate = "none"

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-5,
        reg_covar: float | str = "auto",
        max_iter: int = 100,
        n_init: int = 1,
        init_params: Any = "auto",
        weight_concentration_prior_type: str = PROCESS,
        weight_concentration_prior: float | None = None,
        mean_precision_prior: float | None = None,
        mean_prior: Any = None,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: Any = None,
        sample_size: int | str = "auto",
        max_passes: int | None = None,
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
        self.weight_concentration_prior_type = weight_concentration_prior_type
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.sample_size = sample_size
        self.max_passes = max_passes
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
        """Find the posterior.

        Parameters
        ----------
        X, y, sample_weight, sample_dims, variables, labels_to
            As for `GaussianMixture.fit`.

        Raises
        ------
        InputError, InputTypeError
            X or an option cannot be used; the message says where and what to do.
        StoreNotFoundError, VariableNotFoundError, StoreExistsError
            There is no store or variable of that name, or there is one where `labels_to` should be.
        CollapsedComponentError
            A covariance is singular and reg_covar is too small to mend it.
        BadChunkError
            A chunk of X cannot be read.
        VersionMismatchError, AsynchronousClientError
            The active cluster has other versions of packages, or its client cannot wait for answers.
        """
        k = self._check_options()
        opened, fit = self._begin(X, sample_weight, sample_dims, variables, labels_to)
        self._check_shapes(fit.rows.d)
        parameters = self._family().n_parameters(k, fit.rows.d)
        with fit:
            summary, sample = fit.survey(k, self._sample_rows(fit.rows, k, parameters), self.seed_)
            start = MixtureStart.of(self, fit, summary, sample)
            frame, floor = start.frame, start.em.floor
            own = self._conjugate(fit, summary, frame, floor / frame.scale**2)
            prior = own.entered(frame.shift, frame.scale)
            posteriors = self._starts(start, prior, summary.mass)
            left = self._left(fit, self.max_iter, other=-1)  # no pass measures what came out: the bound is known
            algorithm = Variational(prior, frame, fit.rows.dtype, floor, float(self.tol), left)
            states = [algorithm.start(posterior) for posterior in posteriors]
            ended = fit.run_to_models([algorithm] * len(states), states, "variational", "evidence bound")
        self._keep(_best(ended), frame, own)
        self._remember(fit)
        if not self.converged_:
            warnings.warn(
                f"the evidence bound of a row still gained more than tol={self.tol} after {self.n_iter_} iterations; "
                "raise max_iter, max_passes or tol, or go on with warm_start=True",
                ConvergenceWarning,
                stacklevel=2,
            )
        self._write_labels(fit, opened, sample_dims, labels_to)
        return self

    def to_sklearn(self) -> Any:
        """The same model as a fitted `sklearn.mixture.BayesianGaussianMixture`."""
        from sklearn.mixture import BayesianGaussianMixture as Peer

        check_is_fitted(self)
        peer = Peer(
            n_components=len(self.weights_),
            covariance_type=KINDS[self._structure().order],
            tol=self.tol,
            max_iter=self.max_iter,
            weight_concentration_prior_type=self.weight_concentration_prior_type,
        )
        for name in (
            "weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_", "mean_precision_",
            "degrees_of_freedom_", "weight_concentration_prior_", "mean_precision_prior_", "mean_prior_",
            "degrees_of_freedom_prior_", "covariance_prior_", "converged_", "n_iter_", "lower_bound_", "n_features_in_",
        ):  # fmt: skip
            setattr(peer, name, getattr(self, name))
        own = self.weight_concentration_
        peer.weight_concentration_ = own if own.ndim == 1 else tuple(own)
        if hasattr(self, "feature_names_in_"):
            peer.feature_names_in_ = self.feature_names_in_
        return peer

    def _check_options(self) -> int:
        k = self._check_start()
        self._option("covariance_type", (*ALIASES, *ALIASES.values()))
        self._option("weight_concentration_prior_type", (PROCESS, DISTRIBUTION))
        self._check_reads()
        for name in ("weight_concentration_prior", "mean_precision_prior", "degrees_of_freedom_prior"):
            if getattr(self, name) is not None and not self._real(name) > 0:
                raise InputError(f"{name}={getattr(self, name)!r} must be positive")
        return k

    def _check_shapes(self, d: int) -> None:
        """Whether priors suit rows of d features."""
        freedom = self.degrees_of_freedom_prior
        if freedom is not None and not freedom > d - 1:
            raise InputError(
                f"degrees_of_freedom_prior={freedom!r} must be above {d - 1}, the number of features less 1"
            )
        if self.mean_prior is not None:
            shaped("mean_prior", self.mean_prior, (d,))
        if self.covariance_prior is not None:
            positive("covariance_prior", self.covariance_prior, self._structure().order, d)

    def _conjugate(self, fit: Fit, summary: Summary, frame: Frame, floor: Array) -> Prior:
        """In the units of X."""
        concentration, precision = self.weight_concentration_prior, self.mean_precision_prior
        mean, freedom, scatter = self.mean_prior, self.degrees_of_freedom_prior, self.covariance_prior
        if scatter is None:
            # Of rows as smoothed as the others: a component without rows has this covariance alone.
            order = self._structure().order
            own = {Order.trace: floor.mean(), Order.diagonal: floor}.get(order, np.diag(floor))
            scatter = spread(fit, summary, frame, order) + own
        return Prior(
            1.0 / self.n_components if concentration is None else float(concentration),
            self.weight_concentration_prior_type == PROCESS,
            1.0 if precision is None else float(precision),
            np.asarray(summary.mean if mean is None else mean, dtype=np.float64),
            float(len(summary.mean) if freedom is None else freedom),
            np.asarray(scatter, dtype=np.float64),
        )

    def _starts(self, start: MixtureStart, prior: Prior, mass: float) -> Sequence[Posterior]:
        """In the frame."""
        frame, floor = start.frame, start.em.floor
        if self._warm():
            fitted = self._posterior()
            return [fitted.rescaled(frame.scale, frame.enter(fitted.means))]
        models = start.models(self.n_init)
        return [prior.posterior(model.moments(floor, Origin()).times(mass), start.family, floor) for model in models]

    def _keep(self, best: VariationalState, frame: Frame, prior: Prior) -> None:
        found = best.model.rescaled(1.0 / frame.scale, frame.leave(best.model.means))
        self._set_parameters(found.weights(), found.means, found.covariance)
        shared = self._structure().order is Order.pooled
        self.weight_concentration_, self.mean_precision_ = found.concentration, found.mean_precision
        self.degrees_of_freedom_ = float(found.freedom[0]) if shared else found.freedom
        self.weight_concentration_prior_, self.mean_precision_prior_ = prior.concentration, prior.mean_precision
        self.mean_prior_, self.degrees_of_freedom_prior_ = prior.mean, prior.freedom
        self.covariance_prior_ = prior.scatter if prior.scatter.ndim else float(prior.scatter)
        self.lower_bound_, self.n_iter_ = best.bound, best.n_iter
        self.converged_ = best.outcome is Outcome.converged

    def _posterior(self) -> Posterior:
        """In the units of X."""
        covariance = self._structure().covariance(self.covariances_, self.precisions_cholesky_)
        freedom = np.broadcast_to(self.degrees_of_freedom_, len(self.means_))
        return Posterior(
            self.weight_concentration_, self.mean_precision_, self.means_, freedom, covariance, self._family()
        )

    def _model(self) -> Mixture:
        return self._posterior().mixture


def _best(ended: Sequence[VariationalState]) -> VariationalState:
    done = [state for state in ended if state.outcome is not Outcome.failed]
    if not done:
        raise CollapsedComponentError(ended[0].why)
    return max(done, key=lambda state: state.bound)
