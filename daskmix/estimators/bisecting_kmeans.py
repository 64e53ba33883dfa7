"""Bisecting K-means."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from daskmix.algorithms.base import Outcome
from daskmix.algorithms.bisecting import Bisecting, Node, Path, flat, grown
from daskmix.algorithms.lloyd import Lloyd
from daskmix.algorithms.seeding import plus_plus
from daskmix.arrays import alongside, to_host
from daskmix.block import Array
from daskmix.centroids import Centroids
from daskmix.estimators.base import Source
from daskmix.estimators.cluster_base import ClusterEstimator, nearest_of
from daskmix.fitting import Fit, sampled
from daskmix.hooks import Run
from daskmix.kernels import Frame
from daskmix.kernels.reference import nearest, nearest_observed
from daskmix.race import MOST_STARTS
from daskmix.sampling import Sample, completed

MERITS: dict[str, Callable[[Node], float]] = {
    "biggest_inertia": lambda node: node.cost,
    "largest_cluster": lambda node: node.mass if node.cost > 0 else 0.0,
}


class BisectingKMeans(ClusterEstimator):
    """Bisecting K-means for data that need not fit in memory.

    The rows are one cluster, and again and again one of the clusters is split in two by K-means, until there are enough
    [1]_. Splits that may be needed are made in shared passes, so that these grow with the depth of the tree, not with
    the number of clusters; the tree is that of one split after the other. One pass looks at the data and draws the
    sample, on which each split starts; each iteration reads every chunk once, and one more pass measures both halves.

    Parameters
    ----------
    n_clusters : int
        Number of clusters, k.
    n_init : int
        Starts of each split, by greedy k-means++ on the sample, of which the best there is taken.
    max_iter : int
        Most iterations of each split.
    tol : float
        A split ends when the sum of squared shifts of its centres is at most `tol` times the mean variance of the
        features. 0 goes on to a fixed point.
    bisecting_strategy : {"biggest_inertia", "largest_cluster"}
        Which cluster is split next: that of the largest inertia, or of the largest weight.
    sample_size : "auto" or int
        Rows of the sample, drawn uniformly from all chunks; "auto" is at most 64 MiB of numbers.
    missing : {"raise", "drop", "em"}
        As in `KMeans`.
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
        Sum of w |x - own centre|^2, where a row's own centre is that which the tree leads to.
    labels_ : (n,) int32, or lazy where X is lazy
    cluster_weights_ : (k,) float64
    tree_centers_ : (k - 1, 2, d) float64
        Of each split the two centres, of which a row follows the nearer, from the first split on.
    tree_children_ : (k - 1, 2) int64
        Where these lead: to a split, or, as -1 - label, to a cluster.
    n_iter_, n_passes_, bytes_read_ : int
        Most iterations of a split; times that every chunk was read; bytes decoded, but for chunks that were kept.
    history_ : list of dict
    seed_ : int
    n_features_in_, feature_names_in_, feature_units_

    References
    ----------
    .. [1] Steinbach, Karypis & Kumar (2000), A comparison of document clustering techniques.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1.0, 1], [10, 1], [3, 1], [10, 0], [2, 1], [10, 2], [10, 8], [10, 9], [10, 10]])
    >>> model = BisectingKMeans(3, random_state=0).fit(X)
    >>> sorted(model.cluster_centers_.tolist())
    [[2.0, 1.0], [10.0, 1.0], [10.0, 9.0]]
    """

    accelerate = "none"
    gap_tol = 0.0
    warm_start = False
    max_passes = None

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        n_init: int = 1,
        max_iter: int = 300,
        tol: float = 1e-4,
        bisecting_strategy: str = "biggest_inertia",
        sample_size: int | str = "auto",
        missing: str = "raise",
        random_state: Any = None,
        verbose: int = 0,
        run: Run | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.bisecting_strategy = bisecting_strategy
        self.sample_size = sample_size
        self.missing = missing
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
        """Find the tree.

        Parameters and what is raised are those of `KMeans.fit`.
        """
        k = self._check_options()
        merit = MERITS[self.bisecting_strategy]
        opened, fit = self._begin(X, sample_weight, sample_dims, variables, labels_to)
        with fit:
            summary, sample = fit.survey(k, self._sample_rows(fit.rows, k, 0), self.seed_)
            lloyd = self._lloyd(fit, summary)
            frame, scatter = lloyd.frame, float(summary.scatter.sum())
            root = Node(frame.enter(summary.mean), summary.mass, scatter * float(frame.scale[0]) ** 2)
            starts = _Starts(fit, lloyd, sample, self.seed_, int(self.n_init))
            algorithm = Bisecting(lloyd, k, merit, starts)
            (ended,) = fit.run_to_models([algorithm], [algorithm.start(root)], "bisecting", "inertia")
        converged = ended.outcome is Outcome.converged
        self._keep(ended.root, k, merit, frame, ended.n_iter, converged)
        self._labels, self._fitted_on = None, (opened, sample_dims)
        self._remember(fit)
        self._write_labels(fit, opened, sample_dims, labels_to)
        return self

    def _check_options(self) -> int:
        k = self._whole("n_clusters", 1)
        self._whole("n_init", 1, MOST_STARTS)
        self._whole("max_iter", 1)
        self._real("tol")
        self._option("bisecting_strategy", tuple(MERITS))
        self._check_reads()
        return k

    def _keep(
        self, root: Node, k: int, merit: Callable[[Node], float], frame: Frame, n_iter: int, converged: bool
    ) -> None:
        leaves, _ = grown(root, k, merit)
        if converged and len(leaves) < k:
            warnings.warn(
                f"Number of distinct clusters ({len(leaves)}) found smaller than n_clusters ({k}). "
                "Possibly due to duplicate points in X.",
                ConvergenceWarning,
                stacklevel=3,
            )
        pairs, self.tree_children_ = flat(root, leaves)
        self.tree_centers_ = frame.leave(pairs)
        nodes = [root.at(path) for path in leaves]
        self.cluster_centers_ = frame.leave(np.stack([node.centre for node in nodes]))
        self.cluster_weights_ = np.array([node.mass for node in nodes])
        self.inertia_ = sum(node.cost for node in nodes) / float(frame.scale[0]) ** 2
        self.n_iter_, self.converged_, self.gap_estimate_ = n_iter, converged, np.nan
        self._n_features_out = len(nodes)

    def _label_function(self) -> tuple[Callable[[Array, bool], Array], int]:
        return partial(_leaves, self.tree_centers_, self.tree_children_), len(self.cluster_centers_)

    def score(
        self, X: Source, y: Any = None, sample_weight: Any = None, *, sample_dims: Any = None, variables: Any = None
    ) -> float:
        """Minus the sum of w |x - own centre|^2 of these rows, by the tree; one pass."""
        check_is_fitted(self)
        found = self.cluster_stats(X, None, sample_weight, sample_dims=sample_dims, variables=variables, quantiles=())
        away = found["mean"].values - self.cluster_centers_
        squares = np.where(found.weight.values > 0, found.variance.values + away**2, 0.0)
        return -float((found.weight.values * squares).sum())


class _Starts:
    """Where the split of a leaf starts: the best 2-means of its rows of the sample."""

    def __init__(self, fit: Fit, lloyd: Lloyd, sample: Sample, seed: int, n_init: int) -> None:
        self.fit, self.lloyd, self.sample, self.seed, self.n_init = fit, lloyd, sample, seed, n_init
        self.x = lloyd.frame.enter(sample.x.astype(np.float64))

    def __call__(self, root: Node, path: Path) -> Array:
        own = self._members(root, path)
        x, w = self.x[own], self.sample.w[own]
        if len(np.unique(completed(x, w), axis=0)) < 2:
            # The sample does not tell: a standard deviation to both sides, where some rows will be or it stays whole.
            leaf = root.at(path)
            return leaf.centre + np.sqrt(leaf.cost / leaf.mass / x.shape[1]) * np.array([[-1.0], [1.0]])
        rng = np.random.default_rng([self.seed, *path])
        drawn = [Centroids(plus_plus(x, w, 2, rng)) for _ in range(self.n_init)]
        few = replace(self.sample.at(own), x=x, w=w)
        plain = Lloyd(Frame(np.zeros(x.shape[1]), np.ones(x.shape[1])), self.lloyd.tol, self.lloyd.max_iter)
        with self.fit.sampling():
            ended = self.fit.on_sample([plain] * len(drawn), [plain.start(c) for c in drawn], sampled(few))
        best = min(ended, key=lambda state: state.cost)
        centres: Array = best.model.centres
        return centres

    def _members(self, root: Node, path: Path) -> Array:
        """Rows of the sample in this leaf."""
        own, node = np.arange(len(self.x)), root
        for side in path:
            rows = self.x[own]
            find = nearest_observed if np.isnan(rows).any() else nearest
            own = own[find(rows, node.pair())[0] == side]
            node = node.at((side,))
        return own


def _leaves(centres: Array, children: Array, x: Array, gaps: bool) -> Array:
    """The cluster that the tree leads each row to: (n,)."""
    label = np.full(len(x), -1)
    if not len(children):
        return label + 1
    at = np.zeros(len(x), dtype=np.int64)  # the next split of each row; below zero it has arrived
    for split, (pair, leads) in enumerate(zip(centres, children, strict=True)):
        own = np.flatnonzero(at == split)
        side = to_host(nearest_of(pair, x[alongside(own, x)], gaps))
        at[own] = leads[side]
    return -1 - at
