"""Gaussian mixtures."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from daskmix import criteria
from daskmix.algorithms.base import Algorithm, Outcome
from daskmix.algorithms.em import EM, EMState, OnCollapse
from daskmix.algorithms.stochastic import Stochastic
from daskmix.block import Array
from daskmix.covariance import Covariance, DiagonalCovariance, SharedCovariance, SphericalCovariance
from daskmix.errors import CollapsedComponentError, CollapsedComponentWarning, InputError
from daskmix.estimators.base import Source
from daskmix.estimators.kmeans import KMeans
from daskmix.estimators.mixture_after import AfterFit
from daskmix.estimators.mixture_base import KINDS, framed
from daskmix.estimators.mixture_checks import (
    check_collapse,
    check_given,
    check_noise,
    check_nu,
    numbers,
    temperatures,
)
from daskmix.estimators.mixture_held import check_fixed, held_of
from daskmix.estimators.mixture_prior import conjugate, given_prior
from daskmix.estimators.mixture_start import STRUCTURES, MixtureStart
from daskmix.family import Conjugate, Family, Freedom
from daskmix.fitting import Fit
from daskmix.given import Noise
from daskmix.hooks import Run
from daskmix.kernels import Frame
from daskmix.mixture import Mixture, estimate
from daskmix.moments import Moments, blended
from daskmix.sampling import Summary
from daskmix.sharing import Explain, Sharing
from daskmix.structures import Fixed, Structure

START_NU = 4.0  # where an estimate begins: few, for a start may be spoilt by outliers
FORGETTING = 0.7  # between 1/2, which forgets soonest, and 1, which never does
GIVEN: tuple[type[Covariance], ...] = (SphericalCovariance, DiagonalCovariance, SharedCovariance)  # by its dimensions


class GaussianMixture(AfterFit):
    """Gaussian mixture for data that need not fit in memory.

    Expectation-maximisation [1]_ from a start found on a uniform sample of the rows, accelerated where there are many.
    One pass looks at the data and draws the sample, each iteration reads every chunk once, and one more pass measures
    the likelihood of the parameters that are returned.

    Parameters
    ----------
    n_components : int
        Number of components, k.
    covariance_type : str
        Shape of the covariances: "full", "tied", "diag", "spherical", or one of mclust's fourteen names, which say
        whether volume, shape and orientation are equal (E), vary (V) or are the identity (I): EII, VII (spherical),
        EEI, VEI, EVI, VVI (diag), EEE (tied), VEE, EVE, VVE, EEV, VEV, EVV, VVV (full) [3]_. "fixed" is what
        `covariance_init` says.
    tol : float
        The textbook's iteration stops when the mean log-likelihood of a row gains less than this. 0 goes on to a fixed
        point, also where the fit is accelerated.
    reg_covar : "auto" or float
        Smoothing: the fit is that of the data convolved with N(0, reg_covar I), so that EM stays exactly monotone and
        no covariance is smaller. "auto" is 1e-6 of each feature's variance, whatever its unit.
    max_iter : int
        Most iterations of each start.
    n_init : int
        Number of starts, of which the best is kept; they share every read. Where starts race on the sample, as many do,
        or, if that is 1, as many of ten as the passes are worth.
    init_params : {"auto", "kmeans", "k-means++", "random", "random_from_data"}, array or fitted model
        Where to start. "kmeans" (and "auto") is K-means on the sample; "k-means++" and "random_from_data" take centres
        from the sample, "random" random responsibilities of the sample. An array holds a label (n,) or responsibilities
        (n, k) for each row, -1 or what they leave for noise; a fitted mixture gives its parameters (only its means, if
        its covariances are of another type), a fitted K-means its centres.
    weights_init, means_init, precisions_init : arrays of scikit-learn's shapes, or None
        Explicit start. With means alone, the sample's rows go to their nearest mean.
    covariance_init : number, (d,) or (d, d) array, or None
        With covariance_type="fixed": the covariance of every component, in the units of X squared, a number e standing
        for e times the identity. It is given and not estimated: with a small one, the components are K-means'.
    equal_weights : bool
        Whether all components have the weight 1 / k.
    fixed : None, sequence or dict
        What stays as it is given: any of "weights", "means" and "covariances", or numbers of components, of which all
        stays; a dict says of which, such as {"means": [0, 2], "covariances": True}. It is given by weights_init,
        means_init and precisions_init, which then may be NaN for components of which nothing is known (these are
        drawn, away from the means that are), by a fitted mixture as init_params, or by the last fit with warm_start.
        Weights that are free share what those that are held leave. A covariance can be held alone where each component
        has its own ("full", "diag", "spherical").
    noise : bool
        Whether rows may belong to no component: noise, uniform in the box that the rows are in, with a weight of its
        own [9]_. Such rows get the label -1. As in mclust, its density is the same outside of the box, and it counts
        as two parameters.
    semi_supervised : bool
        Whether the y of `fit` says of which component rows are known to be. By default it is ignored, as scikit-learn
        wants it of estimators that look for labels.
    nu : None, number, (k,) array or "estimate"
        Degrees of freedom of components that are multivariate Student's t instead of Gaussian, so that rows far from
        all of them count for little [10]_; given, from 0.1 on, or with "estimate" found for each, up to 1000.
        The fit is the textbook's iteration. Where outliers dominate the variance of a feature, pass a number as
        `reg_covar`.
    min_weight : float
        The least share of the rows that a component may have: below 1 / n_components, unless others are dropped.
    on_collapse : {"keep", "restart", "drop", "raise"}
        What becomes of a component that has fewer rows than that, or whose covariance is singular. With "restart" it
        gets half of the component that has most, three times at most; with "drop" the mixture goes on without it, the
        lightest first; both with a warning. "raise" is an error, if it happens to every start. With "keep", which has
        no `min_weight`, a component without rows stays where it was, and one without a covariance is an error.
    prior : None, "default" or dict
        Of means and covariances: normal and inverse Wishart (gamma for "diag" and "spherical"). The fit is then the
        maximum of likelihood times prior [7]_, and no component is without a covariance. "default" is mclust's
        `priorControl()`: `shrinkage` 0.01, the rows that the prior of a mean counts for; `mean` that of the rows; `dof`
        d + 2; `scale` the covariance of the rows over k ** (2 / d) (for ellipsoids of any orientation, and one more
        pass; of rows with gaps, values that are missing count as uncorrelated), or the mean of their variances over
        that. A dict gives some of these four. Where all covariances are
        equal, they have one prior together.
    algorithm : {"em", "cem", "sem"}
        How rows are shared out. "em" by their responsibilities. "cem" each to its likeliest component (classification
        EM [4]_), which maximises the likelihood of rows and labels, as K-means does, and finds a partition rather than
        a density. "sem" each to a component that is drawn by them (stochastic EM [5]_): `max_iter` passes, of whose
        models the likeliest is the answer.
    temperature : number or sequence of numbers
        Responsibilities are those of log p(x, k) / temperature. A sequence, such as (8, 4, 2, 1), gives those of the
        first iterations, the last number goes on: deterministic annealing [6]_. It leaves bad starts where
        covariances are fixed; free ones may become all alike at a high temperature, and stay so.
    accelerate : {"auto", "none"}
        "auto" saves passes where there are more rows than the sample holds, the start is drawn and max_iter is above 1:
        with init_params="auto" the best of ten starts on the sample is taken, by turns from K-means and from rows drawn
        at random, and the iteration is accelerated until `gap_tol` is reached [2]_. "none" is the textbook's iteration,
        ruled by `tol`.
    gap_tol : float
        An accelerated fit ends when what is left to gain, of the mean log-likelihood, is twice in a row
        estimated to be less.
    sample_size : "auto" or int
        Rows of the sample, drawn uniformly from all chunks. "auto" is at most 64 MiB of numbers, of which as many are
        used as the passes are worth; with a number the start is solved on all of them, whatever that costs.
    max_passes : int or None
        Most reads of every chunk, at least 2; when they are spent, the best model so far is the answer.
    missing : {"raise", "drop", "em"}
        What to do about rows that hold NaN: refuse them, leave them out, or take what is there. With "em" the
        likelihood is that of the values that are there, and EM counts the others with what is to be expected of them
        [8]_: exact where values are missing at random (`docs/missing-values.md`). Where a covariance is not diagonal,
        rows that lack the same features are computed on together, so a pass takes the longer the more kinds of rows
        there are. Rows left out, with "em" those of which nothing is there, get the label -2, NaN in xarray.
    warm_start : bool
        Start from the parameters of the last fit.
    random_state : int, RandomState or None
        Seed of the draws; `seed_` keeps what was drawn.
    verbose : int
        Tell each pass.
    run : Run or None
        How the fit runs: what is kept, who is told, on which device.

    Attributes
    ----------
    weights_ : (k,) float64
        With noise they sum to 1 - noise_weight_.
    noise_weight_ : float
    noise_box_ : (2, d) float64
        Lower and upper corner of the box, with noise.
    means_ : (k, d) float64, in the units of X
    covariances_, precisions_, precisions_cholesky_ : (k, d, d), (d, d), (k, d) or (k,) float64
        With `nu` of the scale matrices: the covariance of a component is nu / (nu - 2) times that, where nu > 2.
    nu_ : (k,) float64
        Degrees of freedom, where `nu` is not None.
    lower_bound_ : float
        Mean log-likelihood of a row under exactly these parameters; of row and component, where that was known.
    converged_ : bool
    gap_estimate_ : float
        What was left of the mean log-likelihood to gain, as the last iteration estimates: half the Newton decrement of
        an accelerated fit, the limit of the last gains (Aitken) of a textbook one; NaN where unknown.
    n_iter_, n_passes_, bytes_read_ : int
        Iterations of the best start; times that every chunk was read; bytes decoded, but for chunks that were kept.
    history_ : list of dict
        One record per pass; `Run` says what is in it. `objective` is the smoothed mean log-likelihood.
    seed_ : int
    n_features_in_, feature_names_in_, feature_units_

    References
    ----------
    .. [1] Dempster, Laird & Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm.
    .. [2] Anderson acceleration (Walker & Ni 2011) with the eigenvalues of saddle-free Newton (Dauphin et al. 2014).
    .. [3] Celeux & Govaert (1995), Gaussian parsimonious clustering models; the common axes of VVE and EVE by Pham
       (2001), Joint approximate diagonalization of positive definite Hermitian matrices.
    .. [4] Celeux & Govaert (1992), A classification EM algorithm for clustering and two stochastic versions.
    .. [5] Celeux & Diebolt (1985), The SEM algorithm.
    .. [6] Ueda & Nakano (1998), Deterministic annealing EM algorithm.
    .. [7] Fraley & Raftery (2007), Bayesian regularization for normal mixture estimation and model-based clustering.
    .. [8] Ghahramani & Jordan (1994), Supervised learning from incomplete data via an EM approach.
    .. [9] Banfield & Raftery (1993), Model-based Gaussian and non-Gaussian clustering, section 4.
    .. [10] Peel & McLachlan (2000), Robust mixture modelling using the t distribution.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1.0, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> model = GaussianMixture(2, random_state=0).fit(X)
    >>> np.sort(model.means_[:, 0]).round(6).tolist()
    [1.0, 10.0]
    """

    n_iter_: int
    noise_weight_: float
    noise_box_: Array
    _n_free: int
    _mass: float
    _smoothing: Array

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
        covariance_init: Any = None,
        equal_weights: bool = False,
        fixed: Any = None,
        noise: bool = False,
        semi_supervised: bool = False,
        nu: Any = None,
        min_weight: float = 0.0,
        on_collapse: str = "keep",
        prior: Any = None,
        algorithm: str = "em",
        temperature: Any = 1.0,
        accelerate: str = "auto",
        gap_tol: float = 1e-5,
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
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.covariance_init = covariance_init
        self.equal_weights = equal_weights
        self.fixed = fixed
        self.noise = noise
        self.semi_supervised = semi_supervised
        self.nu = nu
        self.min_weight = min_weight
        self.on_collapse = on_collapse
        self.prior = prior
        self.algorithm = algorithm
        self.temperature = temperature
        self.accelerate = accelerate
        self.gap_tol = gap_tol
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
        """Find the components.

        Parameters
        ----------
        X : NumPy array, pandas or Dask DataFrame, Dask array, xarray object, zarr.Array, path or URL of a Zarr store
            Rows and features. Of N-d arrays the last axis holds the features, of a Dataset the variables.
        y : (n,) whole numbers or None
            With semi_supervised=True the component that each row is known to be of, -1 (or NaN) where that is unknown,
            in the type of X or in memory. Such rows are of it alone, and the likelihood is that of both (McLachlan &
            Peel 2000, Finite mixture models, section 2.19); `predict` knows nothing of it.
        sample_weight : (n,) array, or DataArray over some of the sampled dims
            How often each row counts.
        sample_dims : sequence of str
            The dims of an xarray object or of a store that are sampled; all others hold features. By default those that
            all variables share, of a DataArray all but the last.
        variables : str or sequence of str
            The variables of a store or Dataset that are features; all by default. One alone counts as a DataArray.
        labels_to : str or path
            A Zarr store to write the labels to when the fit is done.

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
        known = y if self.semi_supervised else None
        opened, fit = self._begin(X, sample_weight, sample_dims, variables, labels_to, y=known)
        fit = self._with_known(fit, opened, y, k, sample_dims)
        given_prior(self.prior, self._structure().order, fit.rows.d)
        parameters = self._family().n_parameters(k, fit.rows.d)
        with fit:
            summary, sample = fit.survey(k, self._sample_rows(fit.rows, k, parameters), self.seed_)
            start = MixtureStart.of(self, fit, summary, sample)
            accelerates = self._may_accelerate() and summary.rows > len(sample)
            if accelerates and self.init_params == "auto":
                models = [start.raced(self.n_init if self.n_init > 1 else 0, summary.rows)[0].model]
            else:
                models = start.models(self.n_init)
            left = self._left(fit, self.max_iter)
            em = replace(start.em, max_iter=left)
            algorithm: Algorithm[Any, Any] = Stochastic(em) if self.algorithm == "sem" else em
            if accelerates:
                algorithm = start.accelerated(left, summary.rows)
            states = [algorithm.start(model) for model in models]
            ended = fit.run_to_models([algorithm] * len(models), states, self.algorithm, self._measure())
        best = _best(ended, self.algorithm == "cem")
        self._keep(best, start, summary.mass)
        self._remember(fit)
        for note in best.notes:
            warnings.warn(note, CollapsedComponentWarning, stacklevel=2)
        self._warn(accelerates)
        self._write_labels(fit, opened, sample_dims, labels_to)
        return self

    def partial_fit(
        self, X: Source, y: Any = None, sample_weight: Any = None, *, sample_dims: Any = None, variables: Any = None
    ) -> Self:
        """Go on with rows that arrived later, in one pass over them; the first call is `fit`.

        Stepwise EM (Cappe & Moulines 2009): the statistics of these rows get the share (m / M) ** 0.7, where m is their
        mass and M that of all rows so far, and those of the rows before, which the parameters hold, the rest. A model
        that was saved goes on where it stopped. `lower_bound_` is that of these rows before the step, and smoothed.
        Components are neither dropped nor restarted.

        Parameters
        ----------
        X, y, sample_weight, sample_dims, variables
            As for `fit`.

        Raises
        ------
        InputError, InputTypeError, FeatureError, UnitsError
            X cannot be used, or has other features than the rows before; and what `fit` raises.
        CollapsedComponentError
            A covariance has become singular and reg_covar is too small to mend it.
        """
        if not hasattr(self, "means_"):
            return self.fit(X, y, sample_weight, sample_dims=sample_dims, variables=variables)
        self._check_options()
        if not self._same_freedom():
            raise InputError("nu is not what it was at the fit; fit anew, or with warm_start=True")
        if self.prior is not None:
            raise InputError("the parameters of a fit with a prior do not tell its rows from it; fit anew, or without")
        if not hasattr(self, "_smoothing"):
            raise InputError("the model was saved by an older daskmix, which did not keep its smoothing; fit it again")
        opened, fit = self._begin(X, sample_weight, sample_dims, variables, history=self.history_)
        fit = self._with_known(fit, opened, y, len(self.means_), sample_dims)
        model, frame = framed(self._model(), fit.rows.dtype)
        floor = self._smoothing * frame.scale**2
        family = replace(model.family, held=held_of(model, self.fixed))
        with fit:
            sharing = self._sharings()[-1].again(self.n_iter_)
            asked = Explain(model, frame, model.path(fit.rows.dtype), floor, sharing)
            found: Moments = fit.ask(asked, "batch")
        mass = float(found.mass.sum())
        if mass > 0:
            share = (mass / (self._mass + mass)) ** FORGETTING
            moments = blended(share, model.moments(floor, found.origin), found)
            stepped = estimate(moments, family, floor, model.covariance)
            stepped = stepped.rescaled(1.0 / frame.scale, frame.leave(stepped.means))
            self._set_parameters(stepped.weights, stepped.means, stepped.covariance, stepped.nu)
            self.lower_bound_, self._certainty = found.score / mass, np.nan
            self._mass += mass
        self.n_iter_, self.converged_, self.gap_estimate_ = self.n_iter_ + 1, False, np.nan
        return self._remember(fit)

    def _check_options(self) -> int:
        k = self._check_start()
        self._option("covariance_type", (*STRUCTURES, "fixed"))
        self._option("algorithm", ("em", "cem", "sem"))
        self._check_patience()
        for check in (check_given, check_collapse, check_noise, check_nu):
            check(self, k)
        check_fixed(self, self._structure(), k)
        return k

    def _freedom(self) -> Freedom | None:
        if self.nu is None:
            return None
        estimated = isinstance(self.nu, str)
        return Freedom(np.full(self.n_components, START_NU if estimated else self.nu, dtype=np.float64), estimated)

    def _same_freedom(self) -> bool:
        """Whether `nu` says what it said at the fit."""
        nu, freedom = getattr(self, "nu_", None), self._freedom()
        if nu is None or freedom is None:
            return nu is None and freedom is None
        estimated = getattr(self, "_nu_estimated", False)
        # Some may have been dropped.
        return freedom.estimated == estimated and (estimated or bool(np.isin(nu, freedom.nu).all()))

    def _em(self, frame: Frame, dtype: np.dtype, floor: Array) -> EM:
        em = super()._em(frame, dtype, floor)
        return replace(em, on_collapse=OnCollapse(self.on_collapse), min_weight=float(self.min_weight))

    def _prior(self, fit: Fit, summary: Summary, frame: Frame) -> Conjugate | None:
        if self.prior is None:
            return None
        return conjugate(self.prior, self._structure(), self.n_components, fit, summary, frame)

    def _temperatures(self) -> tuple[float, ...]:
        return temperatures(self.temperature)

    def _sharings(self) -> tuple[Sharing, ...]:
        if self.algorithm == "em":
            return tuple(Sharing(t) for t in self._temperatures())
        return (Sharing(hard=True),) if self.algorithm == "cem" else (Sharing(seed=self.seed_),)

    def _measure(self) -> str:
        if self.prior is not None:
            return "log posterior"
        if self.algorithm == "cem":
            return "classification log-likelihood"
        return "log-likelihood" if self._temperatures() == (1.0,) else "free energy"

    def _may_accelerate(self) -> bool:
        textbook = self.algorithm != "em" or self._temperatures() != (1.0,) or self.nu is not None
        return super()._may_accelerate() and not textbook

    def _start_given(self) -> bool:
        if self._warm() or not isinstance(self.init_params, str):
            return True
        if self.fixed is not None:  # parts may be given, and the rest drawn
            return self.means_init is not None and not np.isnan(numbers(self.means_init)).any()
        return any(value is not None for value in (self.weights_init, self.means_init, self.precisions_init))

    def _keep(self, best: EMState, start: MixtureStart, mass: float) -> None:
        frame, floor = start.frame, start.em.floor / start.frame.scale**2
        model = best.model.rescaled(1.0 / frame.scale, frame.leave(best.model.means))
        self.__dict__.pop("noise_box_", None)
        if model.family.noise is not None:
            self.noise_box_ = np.stack([model.family.noise.low, model.family.noise.high])
        self._set_parameters(model.weights, model.means, model.covariance, model.nu)
        self._n_free = model.n_parameters()
        self._nu_estimated = model.family.freedom is not None and model.family.freedom.estimated
        self.lower_bound_ = best.score / mass
        self.converged_ = best.outcome is Outcome.converged
        self.n_iter_ = best.n_iter
        self.gap_estimate_ = best.gap
        self._mass, self._certainty, self._smoothing = mass, best.certainty, floor

    def _warn(self, accelerated: bool) -> None:
        if self.converged_:
            return
        unit = "of the mean log-likelihood"
        if accelerated:
            self._warn_unfinished(unit)
        else:
            warnings.warn(
                f"the mean log-likelihood still gained more than tol={self.tol} after {self.n_iter_} iterations; "
                f"the estimated gap {self._gap_in_words(unit)}; raise max_iter, max_passes or tol, or go on with "
                "warm_start=True",
                ConvergenceWarning,
                stacklevel=3,
            )

    # --- how well it fits ---------------------------------------------------------------------------------------------

    def bic(
        self, X: Source = None, sample_weight: Any = None, *, sample_dims: Any = None, variables: Any = None
    ) -> float:
        """Bayesian information criterion, smaller is better (Schwarz 1978); of the fit's own rows without X.

        Where the fit knew of which component rows are, that is of both; of X it is of the rows alone.
        """
        score, mass, _ = self._totals(X, sample_weight, sample_dims, variables)
        return criteria.bic(score, mass, self._n_parameters())

    def aic(
        self, X: Source = None, sample_weight: Any = None, *, sample_dims: Any = None, variables: Any = None
    ) -> float:
        """Akaike information criterion, smaller is better (Akaike 1974); of the fit's own rows without X."""
        score, mass, _ = self._totals(X, sample_weight, sample_dims, variables)
        return criteria.aic(score, mass, self._n_parameters())

    def icl(
        self, X: Source = None, sample_weight: Any = None, *, sample_dims: Any = None, variables: Any = None
    ) -> float:
        """Integrated completed likelihood, smaller is better (Biernacki, Celeux & Govaert 2000).

        BIC plus twice the sum of -log of each row's largest responsibility; of the fit's own rows without X.
        """
        score, mass, certainty = self._totals(X, sample_weight, sample_dims, variables)
        return criteria.icl(score, mass, self._n_parameters(), certainty)

    def _totals(self, X: Source, weight: Any, sample_dims: Any, variables: Any) -> tuple[float, float, float]:
        """Sum of log-likelihood, weight and log of the largest responsibility."""
        check_is_fitted(self)
        if X is None:
            if any(given is not None for given in (weight, sample_dims, variables)):
                raise InputError("sample_weight, sample_dims and variables say how to read X; pass X too")
            if np.isnan(self._certainty):
                raise InputError("the likelihood of all rows is not known, after partial_fit or to_mixture; pass X")
            return self.lower_bound_ * self._mass, self._mass, self._certainty
        sums = self._measured(X, weight, sample_dims, variables)
        return sums.score, float(sums.mass.sum()), sums.certainty

    def to_kmeans(self) -> KMeans:
        """K-means with these means for centres: fitted, but its inertia is unknown (NaN) until `score(X)` measures it.

        Its labels are those of this mixture where weights are equal and all components share one spherical covariance.
        """
        check_is_fitted(self)
        model = KMeans(len(self.means_), missing=self.missing, random_state=self.random_state, run=self.run)
        model.cluster_centers_, model.cluster_weights_ = self.means_.copy(), self.weights_ * self._mass
        model.inertia_, model._n_features_out = np.nan, len(self.means_)
        self._hand_over(model)
        return model

    def to_sklearn(self) -> Any:
        """The same model as a fitted `sklearn.mixture.GaussianMixture`.

        Raises
        ------
        InputError
            Components are Student's t, which scikit-learn does not have.
        """
        from sklearn.mixture import GaussianMixture as Peer

        check_is_fitted(self)
        self._refuse_tails("scikit-learn's mixture")
        if hasattr(self, "noise_weight_"):
            raise InputError("scikit-learn's mixtures have no noise; fit with noise=False")
        kind = KINDS[self._structure().order]
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
        if self.covariance_type == "fixed":
            return Fixed(GIVEN[np.ndim(self.covariance_init)])
        return super()._structure()

    def _family(self) -> Family:
        return Family(self._structure(), bool(self.equal_weights), freedom=self._freedom())

    def _model(self) -> Mixture:
        # What was fitted counts, not what the options have become since.
        model, nu = super()._model(), getattr(self, "nu_", None)
        freedom = None if nu is None else Freedom(nu, getattr(self, "_nu_estimated", False))
        model = replace(model, nu=nu, family=replace(model.family, freedom=freedom))
        if not hasattr(self, "noise_weight_"):
            return model
        family = replace(model.family, noise=Noise(*self.noise_box_))
        return replace(model, weights=np.append(self.weights_, self.noise_weight_), family=family)

    def _set_parameters(self, weights: Array, means: Array, covariance: Covariance, nu: Array | None = None) -> None:
        super()._set_parameters(weights[: len(means)], means, covariance)
        self.__dict__.pop("noise_weight_", None)
        if len(weights) > len(means):
            self.noise_weight_ = float(weights[-1])
        self.__dict__.pop("nu_", None)
        if nu is not None:
            self.nu_ = nu

    def _more_parameters(self) -> dict[str, Any]:
        if hasattr(self, "nu_"):
            return {"nu": ("component", self.nu_)}
        return {"noise_weight": self.noise_weight_} if hasattr(self, "noise_weight_") else {}

    def _n_parameters(self) -> int:
        # As they were counted at the fit; what follows from a fitted model is all free.
        return self._n_free if hasattr(self, "_n_free") else self._model().n_parameters()


def _best(ended: Any, of_labels: bool) -> EMState:
    """The likeliest; of classifications, with the labels."""
    done = [state for state in ended if state.outcome is not Outcome.failed]
    if not done:
        raise CollapsedComponentError(ended[0].why)

    def merit(state: EMState) -> float:
        nothing = np.zeros(state.model.shape[1])
        return state.score + (state.certainty if of_labels else 0.0) + state.model.log_prior(nothing)

    return max(done, key=merit)
