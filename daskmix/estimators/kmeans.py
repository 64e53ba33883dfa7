"""K-means."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from daskmix.algorithms.acceleration import Accelerated, accelerated_lloyd
from daskmix.algorithms.base import Algorithm, Chain, Outcome
from daskmix.algorithms.lloyd import Lloyd, LloydState
from daskmix.algorithms.seeding import ParallelSeeding, plus_plus, random_rows
from daskmix.block import Array
from daskmix.centroids import ROUNDING, Assign, Centroids
from daskmix.covariance import SphericalCovariance
from daskmix.directions import Directions, unit
from daskmix.errors import EmptyClusterWarning, InputError
from daskmix.estimators.base import Source
from daskmix.estimators.cluster_base import ClusterEstimator, cluster_frame
from daskmix.fitting import Fit
from daskmix.hooks import Run
from daskmix.kernels import Frame, Order
from daskmix.race import MOST_STARTS, Raced, Rung, ladder, race
from daskmix.rows import beside
from daskmix.sampling import Sample, completed
from daskmix.sharing import Learn

if TYPE_CHECKING:
    from daskmix.estimators.gaussian_mixture import GaussianMixture

INITS = ("auto", "k-means++", "k-means||", "random")
ROUNDS = 5  # of k-means||
ROWS_PER_CLUSTER = 20  # at least, where starts race on the sample


class KMeans(ClusterEstimator):
    """K-means for data that need not fit in memory.

    Lloyd's algorithm from centres found on a uniform sample of the rows, accelerated where there are many. One pass
    looks at the data and draws the sample, each iteration reads every chunk once, and one more pass measures the cost
    of the centres that are returned, unless the last iteration moved nothing.

    Parameters
    ----------
    n_clusters : int
        Number of clusters, k.
    init : {"auto", "k-means++", "k-means||", "random"}, array or fitted model
        Where to start. "k-means++" (and "auto") is greedy k-means++ on the sample [1]_; "k-means||" takes five rounds
        of 2k far rows from all rows and clusters them by their mass [2]_; "random" takes rows of the sample. An array
        of shape (k, d) holds centres, one of shape (n,) a label for each row; a fitted model gives its centres. A
        callable is called as init(X, n_clusters, random_state) with the sample.
    n_init : "auto" or int
        Number of starts, of which the best is kept; they share every read. "auto" is 10 for "random", else 1. Where
        starts race on the sample, as many do, or, if that is 1, as many of ten as the passes are worth.
    max_iter : int
        Most iterations of each start.
    tol : float
        The textbook's iteration stops when the sum of squared shifts of the centres is at most `tol` times the mean
        variance of the features. 0 goes on to a fixed point, also where the fit is accelerated.
    accelerate : {"auto", "none"}
        "auto" saves passes where there are more rows than the sample holds, the start is drawn and max_iter is above 1:
        with init="auto" the best of ten starts on the sample is taken, and the iteration is accelerated until
        `gap_tol` is reached [3]_. "none" is the textbook's iteration, ruled by `tol`.
    gap_tol : float
        An accelerated fit ends when what is left to gain, a share of the inertia, is twice in a row
        estimated to be less.
    sample_size : "auto" or int
        Rows of the sample, drawn uniformly from all chunks. "auto" is at most 64 MiB of numbers, of which as many are
        used as the passes are worth; with a number the start is solved on all of them, whatever that costs.
    max_passes : int or None
        Most reads of every chunk, at least 2; when they are spent, the best model so far is the answer.
    metric : {"euclidean", "cosine"}
        "cosine" clusters directions: rows are taken at length one, centres are too, and each row goes to the centre
        with the largest cosine (spherical K-means [5]_). A row of zeros has no direction and counts as missing.
    missing : {"raise", "drop", "em"}
        What to do about rows that hold NaN: refuse them, leave them out, or take what is there. With "em" distances are
        those of the features that a row has, and a centre is the mean, feature by feature, of its rows that have it:
        the objective of k-POD [4]_, the sum of w (x - c)^2 of all values that are there. Rows left out, with "em" those
        of which nothing is there, get the label -2, NaN in xarray.
    warm_start : bool
        Start from the centres of the last fit.
    random_state : int, RandomState or None
        Seed of the draws; `seed_` keeps what was drawn.
    verbose : int
        Tell each pass.
    run : Run or None
        How the fit runs: what is kept, who is told, on which device.

    Attributes
    ----------
    cluster_centers_ : (k, d) float64, in the units of X
    inertia_ : float
        Sum of w |x - nearest centre|^2 for exactly these centres; with metric="cosine" of directions, and so 2 w times
        (1 - cosine).
    labels_ : (n,) int32, or lazy where X is lazy
        Computed when asked for.
    cluster_weights_ : (k,) float64
        Sum of the weights in each cluster, counted by the last pass.
    n_iter_, n_passes_, bytes_read_ : int
        Iterations of the best start; times that every chunk was read; bytes decoded, but for chunks that were kept.
    converged_ : bool
    gap_estimate_ : float
        What was left to gain, as a share of the inertia: estimated by the last iteration (half the Newton decrement);
        NaN where unknown.
    history_ : list of dict
        One record per pass; `Run` says what is in it.
    seed_ : int
    n_features_in_, feature_names_in_, feature_units_

    References
    ----------
    .. [1] Arthur & Vassilvitskii (2007), k-means++: the advantages of careful seeding.
    .. [2] Bahmani et al. (2012), Scalable k-means++.
    .. [3] Anderson acceleration (Walker & Ni 2011) with the eigenvalues of saddle-free Newton (Dauphin et al. 2014).
    .. [4] Chi, Chi & Baraniuk (2016), k-POD: a method for k-means clustering of missing data.
    .. [5] Dhillon & Modha (2001), Concept decompositions for large sparse text data using clustering.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1.0, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> model = KMeans(2, random_state=0).fit(X)
    >>> model.inertia_
    16.0
    >>> sorted(model.cluster_centers_.tolist())
    [[1.0, 2.0], [10.0, 2.0]]
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "auto",
        n_init: int | str = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        accelerate: str = "auto",
        gap_tol: float = 1e-5,
        sample_size: int | str = "auto",
        max_passes: int | None = None,
        metric: str = "euclidean",
        missing: str = "raise",
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int = 0,
        run: Run | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.accelerate = accelerate
        self.gap_tol = gap_tol
        self.sample_size = sample_size
        self.max_passes = max_passes
        self.metric = metric
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
        """Find the centres.

        Parameters
        ----------
        X : NumPy array, pandas or Dask DataFrame, Dask array, xarray object, zarr.Array, path or URL of a Zarr store
            Rows and features. Of N-d arrays the last axis holds the features, of a Dataset the variables.
        y : ignored
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
        BadChunkError
            A chunk of X cannot be read.
        VersionMismatchError, AsynchronousClientError
            The active cluster has other versions of packages, or its client cannot wait for answers.
        """
        k = self._check_options()
        opened, fit = self._begin(X, sample_weight, sample_dims, variables, labels_to)
        with fit:
            summary, sample = fit.survey(k, self._sample_rows(fit.rows, k, 0), self.seed_)
            lloyd = self._lloyd(fit, summary)
            algorithms, states = self._starts(k, fit, lloyd, summary.rows, sample)
            ended = fit.run_to_models(algorithms, states, "lloyd", "inertia")
        best = min(ended, key=lambda state: state.cost)
        self._keep(best, lloyd.frame, opened, sample_dims)
        self._remember(fit)
        self._warn(best, accelerated=hasattr(best, "rejected"))
        self._write_labels(fit, opened, sample_dims, labels_to)
        return self

    def partial_fit(
        self, X: Source, y: Any = None, sample_weight: Any = None, *, sample_dims: Any = None, variables: Any = None
    ) -> Self:
        """Go on with rows that arrived later, in one pass over them; the first call is `fit`.

        Each centre becomes the mean of all rows that were ever assigned to it, so that its steps decrease (mini-batch
        K-means, Sculley 2010). A model that was saved goes on where it stopped. `inertia_` is that of these rows before
        the step.

        Parameters
        ----------
        X, y, sample_weight, sample_dims, variables
            As for `fit`.

        Raises
        ------
        InputError, InputTypeError, FeatureError, UnitsError
            X cannot be used, or has other features than the rows before; and what `fit` raises.
        """
        if not hasattr(self, "cluster_centers_"):
            return self.fit(X, y, sample_weight, sample_dims=sample_dims, variables=variables)
        self._check_options()
        opened, fit = self._begin(X, sample_weight, sample_dims, variables, history=self.history_)
        frame = cluster_frame(self.cluster_centers_, fit.rows.dtype)
        centres = frame.enter(self.cluster_centers_)
        with fit:
            found = fit.ask(Assign(Centroids(centres), frame), "batch")
        mass = np.asarray(self.cluster_weights_) + found.mass
        seen = getattr(self, "_feature_weights", np.asarray(self.cluster_weights_)[:, None]) + found.seen
        has_rows = seen > ROUNDING * mass[:, None]
        step = np.where(has_rows, (found.first - found.seen * centres) / np.where(has_rows, seen, 1.0), 0.0)
        self._weigh_features(seen)
        self.cluster_centers_, self.cluster_weights_ = self._on_sphere(frame.leave(centres + step)), mass
        self.inertia_ = float(found.cost) / float(frame.scale[0]) ** 2
        self.n_iter_, self.converged_, self.gap_estimate_ = self.n_iter_ + 1, False, np.nan
        self._labels, self._fitted_on = None, (opened, sample_dims)
        return self._remember(fit)

    def _check_options(self) -> int:
        k = self._whole("n_clusters", 1)
        self._whole("max_iter", 1)
        self._real("tol")
        if self._option("metric", ("euclidean", "cosine")) == "cosine" and self.missing == "em":
            raise InputError('a row with gaps has no direction; pass missing="drop", or metric="euclidean"')
        self._check_init(k)
        self._check_patience()
        return k

    @property
    def _kind(self) -> type[Centroids]:
        return Directions if self.metric == "cosine" else Centroids

    def _centroids(self, centres: Array) -> Centroids:
        """Centres (k, d) in the frame, which a user gave or a step made."""
        return self._kind(self._on_sphere(centres))

    def _on_sphere(self, centres: Array) -> Array:
        if self.metric != "cosine":
            return centres
        found = unit(centres)
        if np.isnan(found).any():
            raise InputError(f"centre {int(np.isnan(found).any(axis=1).argmax())} is zero, which is no direction")
        return found

    def _prepare(self) -> Callable[[Array], Array] | None:
        return unit if self.metric == "cosine" else None

    def _check_init(self, k: int) -> None:
        if isinstance(self.init, str):
            self._option("init", INITS)
        elif not callable(self.init) and not hasattr(self.init, "fit"):
            given = np.asarray(self.init)
            if given.ndim not in (1, 2) or (given.ndim == 2 and len(given) != k):
                raise InputError(f"init has shape {given.shape}; pass centres ({k}, d) or one label per row (n,)")
        if isinstance(self.n_init, str):
            self._option("n_init", ("auto",))
        else:
            self._whole("n_init", 1, MOST_STARTS)

    def _start_given(self) -> bool:
        return self._warm() or not (isinstance(self.init, str) or callable(self.init))

    def _starts(
        self, k: int, fit: Fit, lloyd: Lloyd, total: int, sample: Sample
    ) -> tuple[list[Algorithm[Any, Any]], list[Any]]:
        """One algorithm and state for each start."""
        frame, init = lloyd.frame, self.init
        if self._warm():
            init = self.cluster_centers_
        automatic = 10 if isinstance(init, str) and init == "random" else 1
        n_init = automatic if isinstance(self.n_init, str) else int(self.n_init)
        if self._start_given():
            if n_init > 1:
                warnings.warn(
                    f"explicit initial centres: one start instead of n_init={n_init}", RuntimeWarning, stacklevel=3
                )
            model = self._centroids(self._given(init, k, fit, frame))
            lloyd = replace(lloyd, max_iter=self._left(fit, lloyd.max_iter))
            return [lloyd], [lloyd.start(model)]
        parallel = isinstance(init, str) and init == "k-means||"
        lloyd = replace(lloyd, max_iter=self._left(fit, lloyd.max_iter, ROUNDS + 1 if parallel else 0))
        accelerated = self._may_accelerate() and total > len(sample)
        if accelerated and isinstance(init, str) and init == "auto":
            faster = accelerated_lloyd(lloyd, self._least_gap())
            with fit.sampling():
                model = self._raced(n_init if n_init > 1 else 0, fit, lloyd, total, sample)[0].model
            return [faster], [faster.start(model)]
        algorithms: list[Algorithm[Any, Any]] = []
        states = []
        for start in range(n_init):
            rng = np.random.default_rng([self.seed_, start])
            own = replace(lloyd, start_number=start)
            algorithm: Algorithm[Any, Any] = accelerated_lloyd(own, self._least_gap()) if accelerated else own
            if parallel:
                seeding = ParallelSeeding(k, frame, fit.rows.dtype, int(rng.integers(2**31)), ROUNDS, self._kind)
                algorithm = Chain(seeding, algorithm)
            algorithms.append(algorithm)
            with fit.sampling():
                model = self._drawn(1 if parallel else k, frame, sample, rng)
            states.append(algorithm.start(model))
        return algorithms, states

    def _drawn(self, k: int, frame: Frame, sample: Sample, rng: np.random.Generator) -> Centroids:
        """Centres from rows of the sample, or from the user's function."""
        x = frame.enter(sample.x.astype(np.float64))
        if callable(self.init):
            rows = frame.leave(completed(x, sample.w)) if np.isnan(x).any() else sample.x
            legacy = np.random.RandomState(rng.integers(2**31))
            centres = np.asarray(self.init(rows, k, random_state=legacy), dtype=np.float64)
            return self._centroids(frame.enter(centres))
        if isinstance(self.init, str) and self.init in ("random", "k-means||"):
            return self._kind(random_rows(completed(x, sample.w), sample.w, k, rng))
        return self._kind(plus_plus(x, sample.w, k, rng))

    def _raced(self, starts: int, fit: Fit, lloyd: Lloyd, total: int, sample: Sample) -> list[Raced]:
        """Several starts, the best first, after as much of Lloyd's iteration on the sample as the passes are worth."""
        k = int(self.n_clusters)
        rungs = ladder(total, len(sample), ROWS_PER_CLUSTER * k, starts, whole=self.sample_size != "auto")
        few = sample.best(rungs[0].rows)
        rngs = [np.random.default_rng([self.seed_, start]) for start in range(rungs[0].racers)]
        drawn = [self._kind(plus_plus(lloyd.frame.enter(few.x.astype(np.float64)), few.w, k, rng)) for rng in rngs]

        def runner(rung: Rung) -> Accelerated:
            return accelerated_lloyd(replace(lloyd, max_iter=rung.passes), rung.gap_tol)

        return race(runner, drawn, sample, rungs, fit, merit=lambda state: -state.cost)

    def _given(self, init: Any, k: int, fit: Fit, frame: Frame) -> Array:
        """Centres (k, d) in the frame, from centres, labels or a fitted model."""
        if hasattr(init, "fit"):
            check_is_fitted(init)
            init = init.cluster_centers_ if hasattr(init, "cluster_centers_") else init.means_
        given = np.asarray(init, dtype=np.float64)
        if given.ndim == 1:
            return self._from_labels(given, k, fit, frame)
        if given.shape != (k, fit.rows.d):
            raise InputError(f"init has shape {given.shape}, but {(k, fit.rows.d)} is needed: k centres in d features")
        if not np.isfinite(given).all():
            raise InputError("init holds NaN or infinity; every centre must be finite")
        return frame.enter(given)

    def _from_labels(self, labels: Array, k: int, fit: Fit, frame: Frame) -> Array:
        if labels.shape != (fit.rows.counted("init"),):
            raise InputError(f"init has {len(labels)} labels but X has {fit.rows.total} rows")
        absent = np.setdiff1d(np.arange(k), labels)
        if len(absent):
            raise InputError(f"no row has the label {absent[0]}; labels 0..{k - 1} are needed")
        plain, fit.rows = fit.rows, beside(fit.rows, labels)
        moments = fit.ask(Learn(k, Order.trace, frame, True, frame.enter(fit.mean), np.zeros(fit.rows.d)), "labels")
        fit.rows = plain
        return moments.first / np.where(moments.mass > 0, moments.mass, 1.0)[:, None]

    def _keep(self, best: LloydState, frame: Frame, X: Source, sample_dims: Any) -> None:
        self.cluster_centers_ = frame.leave(best.model.centres)
        self.inertia_ = best.cost
        self.cluster_weights_ = best.mass
        self._weigh_features(best.seen)
        self.n_iter_ = best.n_iter
        self.converged_ = best.outcome is Outcome.converged
        self.gap_estimate_ = best.gap
        self._n_features_out = len(self.cluster_centers_)
        self._labels = None
        self._fitted_on = (X, sample_dims)

    def _weigh_features(self, seen: Array | None) -> None:
        """Keep the weight of each cluster's rows that have each feature, where some may lack it: (k, d)."""
        self.__dict__.pop("_feature_weights", None)
        if self.missing == "em" and seen is not None:
            self._feature_weights = np.array(np.broadcast_to(seen, self.cluster_centers_.shape))

    def _warn(self, best: LloydState, accelerated: bool) -> None:
        if accelerated and not self.converged_:
            self._warn_unfinished("of the inertia")
        if best.relocated_in_all:
            warnings.warn(
                f"{best.relocated_in_all} times a cluster lost all its rows and was moved to one of the rows farthest "
                "from their centres",
                EmptyClusterWarning,
                stacklevel=3,
            )
        filled = int(np.count_nonzero(np.asarray(self.cluster_weights_)))
        if filled < len(self.cluster_centers_):
            warnings.warn(
                f"Number of distinct clusters ({filled}) found smaller than n_clusters ({len(self.cluster_centers_)}). "
                "Possibly due to duplicate points in X.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _check_euclidean(self, what: str) -> None:
        if self.metric != "euclidean":
            raise InputError(f'{what} knows no directions: fit metric="euclidean" to rows that you bring to length one')

    def to_mixture(self) -> GaussianMixture:
        """The mixture whose classification EM is K-means: equal weights, and one spherical covariance (EII).

        Its variance is the inertia for each row and feature. It is fitted, but its likelihood is unknown (NaN) until
        `score(X)` measures it; `GaussianMixture(k, covariance_type="EII", init_params=model)` goes on from there.

        Raises
        ------
        InputError
            The inertia is 0 or unknown.
        """
        from daskmix.estimators.gaussian_mixture import GaussianMixture  # which knows K-means

        check_is_fitted(self)
        self._check_euclidean("a mixture")
        (k, d), mass = self.cluster_centers_.shape, float(np.sum(self.cluster_weights_))
        values = float(getattr(self, "_feature_weights", mass * np.ones(d)).sum())
        if not self.inertia_ > 0:
            raise InputError(f"inertia_ is {self.inertia_}, so the mixture would have no variance")
        model = GaussianMixture(
            k, covariance_type="EII", equal_weights=True, missing=self.missing, random_state=self.random_state,
            run=self.run,
        )  # fmt: skip
        covariance = SphericalCovariance.of(np.full(k, self.inertia_ / values))
        model._set_parameters(np.full(k, 1.0 / k), self.cluster_centers_.copy(), covariance)
        model.lower_bound_, model._mass, model._certainty, model._smoothing = np.nan, mass, np.nan, np.zeros(d)
        self._hand_over(model)
        return model

    def to_sklearn(self) -> Any:
        """The same model as a fitted `sklearn.cluster.KMeans`."""
        from sklearn.cluster import KMeans as Peer

        check_is_fitted(self)
        self._check_euclidean("scikit-learn's K-means")
        peer = Peer(n_clusters=len(self.cluster_centers_), max_iter=self.max_iter, tol=self.tol)
        peer.cluster_centers_ = np.ascontiguousarray(self.cluster_centers_)
        peer.inertia_, peer.n_iter_, peer.n_features_in_ = self.inertia_, self.n_iter_, self.n_features_in_
        peer._n_threads, peer._n_features_out = 1, len(self.cluster_centers_)
        if hasattr(self, "feature_names_in_"):
            peer.feature_names_in_ = self.feature_names_in_
        return peer
