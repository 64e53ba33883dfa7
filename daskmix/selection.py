"""`select`: many models in shared passes, and the best of them by a criterion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import xarray as xr

from daskmix import criteria, plot
from daskmix.algorithms.acceleration import accelerated_lloyd
from daskmix.algorithms.base import Outcome
from daskmix.algorithms.lloyd import LloydState
from daskmix.algorithms.racing import Racing, RacingState
from daskmix.centroids import Separate, Separation
from daskmix.errors import CollapsedComponentError, InputError, not_one_of, whole
from daskmix.estimators import GaussianMixture, KMeans
from daskmix.estimators.base import Source
from daskmix.estimators.mixture_start import MixtureStart
from daskmix.fitting import Fit
from daskmix.kernels import Frame
from daskmix.mixture import Mixture
from daskmix.race import ENOUGH, MOST_STARTS, Raced
from daskmix.reduction import Together
from daskmix.sampling import Sample, Summary
from daskmix.structures import Structure

MIXTURES = {"bic": criteria.bic, "aic": criteria.aic, "icl": criteria.icl}
CLUSTERS = ("calinski-harabasz", "davies-bouldin", "silhouette")
OWN = ("init", "init_params", "weights_init", "means_init", "precisions_init", "warm_start", "accelerate")  # not to set
SLACK = 5.0  # times p / (2 n_s), what the best model of a sample lacks in the mean


@dataclass(frozen=True)
class Selection:
    """What `select` found.

    Attributes
    ----------
    best_ : GaussianMixture or KMeans
        The best model, fitted.
    table_ : xr.Dataset
        All models, over n_components, covariance_type and init (n_clusters and init for K-means): `score` is the
        criterion, `loglik` the mean log-likelihood of a row (`inertia` for K-means), `parameters` their number,
        `passes` how many the model took part in, `outcome` how it ended: "converged", "exhausted", "dropped" (it could
        not win any more), "sample" (another start was better on the sample, where its figures are from) or "failed".
    criterion : str
    history_ : list of dict
        One record per pass over the rows.
    """

    best_: Any
    table_: xr.Dataset
    criterion: str
    history_: list[dict[str, Any]]

    @property
    def n_passes_(self) -> int:
        """Times that every chunk was read."""
        return len(self.history_)

    def plot(self, axes: Any = None) -> Any:
        """The criterion of the best start over the number of components or clusters; the matplotlib axes."""
        return plot.selection(self.table_, self.criterion, axes)


def select(
    X: Source,
    n_components: Any = None,
    covariance_type: Any = None,
    *,
    n_clusters: Any = None,
    n_init: int = 3,
    criterion: str | None = None,
    sample_weight: Any = None,
    sample_dims: Any = None,
    variables: Any = None,
    **options: Any,
) -> Selection:
    """Fit many models in shared passes and choose the best.

    The starts of each model race on a sample of the rows, those of a mixture also against the next larger one of its
    structure with components merged; then all models go on together, so that each chunk is read once for all of them. A
    mixture leaves when even with all that it may gain yet another one is better; the best five always stay.

    Parameters
    ----------
    X
        As `fit` of the estimators takes it.
    n_components : sequence of int
        Numbers of components to try; 1 to 10 by default.
    covariance_type : str or sequence of str
        Covariance structures to try; "full", "diag" and "tied" by default.
    n_clusters : sequence of int
        Numbers of clusters to try, each at least 2: K-means instead of mixtures.
    n_init : int
        Starts that are drawn for each model; the best on the sample goes on.
    criterion : {"bic", "aic", "icl"}, or {"calinski-harabasz", "davies-bouldin", "silhouette"} for K-means
        What to choose by; "bic" or "calinski-harabasz" by default. The silhouette is the simplified one, of distances
        to centres.
    sample_weight, sample_dims, variables
        As `fit` of the estimators takes them.
    **options
        Other parameters of GaussianMixture or KMeans, such as reg_covar, missing, random_state, max_passes and run.

    Returns
    -------
    Selection

    Raises
    ------
    InputError, InputTypeError
        X or an option cannot be used.
    StoreNotFoundError, VariableNotFoundError
        There is no store or variable of that name.
    CollapsedComponentError
        No mixture could be fitted.
    BadChunkError
        A chunk of X cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(m, 1, (500, 2)) for m in (-5, 0, 5)])
    >>> select(X, range(1, 6), "full", random_state=0).best_.n_components
    3
    """
    asked = asked_for(
        n_components, covariance_type, n_clusters=n_clusters, n_init=n_init, criterion=criterion, options=options
    )
    where = {"sample_weight": sample_weight, "sample_dims": sample_dims, "variables": variables}
    if n_clusters is not None:
        return _clusters(X, asked, n_init, where, options)
    return _mixtures(X, asked, n_init, where, options)


@dataclass(frozen=True)
class Asked:
    """What is tried, and what it is judged by."""

    ks: list[int]
    names: list[str]  # of covariance structures; none for K-means
    criterion: str


def asked_for(
    n_components: Any = None,
    covariance_type: Any = None,
    *,
    n_clusters: Any = None,
    n_init: int = 1,
    criterion: str | None = None,
    options: Mapping[str, Any],
) -> Asked:
    """What `select` was asked for.

    Raises
    ------
    InputError
        It cannot be, whatever the rows are.
    """
    _refuse_options((GaussianMixture if n_clusters is None else KMeans)().get_params(), options)
    whole("n_init", n_init, 1, MOST_STARTS)
    criterion = criterion or (next(iter(MIXTURES)) if n_clusters is None else CLUSTERS[0])
    allowed = tuple(MIXTURES) if n_clusters is None else CLUSTERS
    if n_clusters is not None:
        if n_components is not None:
            raise InputError("pass n_components for mixtures or n_clusters for K-means, not both")
        if covariance_type is not None:
            raise InputError(f"covariance_type={covariance_type!r} is for mixtures; leave it out, or pass n_components")
    if criterion not in allowed:
        raise not_one_of("criterion", criterion, allowed)
    if n_clusters is not None:
        return Asked(_numbers("n_clusters", n_clusters, 2), [], criterion)
    tried = ("full", "diag", "tied") if covariance_type is None else covariance_type
    names = [tried] if isinstance(tried, str) else list(tried)
    if not names:
        raise InputError("covariance_type must name at least one structure")
    return Asked(_numbers("n_components", range(1, 11) if n_components is None else n_components, 1), names, criterion)


def _refuse_options(known: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse options that no model has, or that many models cannot share."""
    for name in options:
        if name in OWN:
            raise InputError(f"{name} is not for select, which draws its own starts; leave it out")
        if name not in known:
            raise not_one_of("option", name, sorted(set(known) - {*OWN, "n_init"}))
    if options.get("algorithm", "em") != "em" or np.any(np.asarray(options.get("temperature", 1.0)) != 1.0):
        raise InputError(
            "select compares likelihoods, which EM at a temperature of 1 maximises; leave algorithm and temperature out"
        )
    if options.get("nu") is not None:
        raise InputError("select compares mixtures of Gaussian components; leave nu out, and fit what it chose with nu")
    if options.get("semi_supervised"):
        raise InputError("select knows of no y; fit each number of components with semi_supervised=True instead")
    if options.get("fixed") is not None or options.get("on_collapse") == "drop":
        raise InputError('fixed and on_collapse="drop" are of one number of components; pass them to GaussianMixture')


def _numbers(name: str, given: Any, least: int) -> list[int]:
    numbers = list(given) if np.iterable(given) else [given]
    if not numbers or not all(isinstance(k, Integral) and int(k) >= least for k in numbers):
        raise InputError(f"{name}={given!r} must name at least one whole number, none below {least}")
    return sorted({int(k) for k in numbers})


@dataclass
class _Shared:
    """One fit under way for many estimators."""

    faces: Sequence[Any]
    X: Source
    fit: Fit

    @staticmethod
    def of(faces: Sequence[Any], X: Source, where: Mapping[str, Any]) -> _Shared:
        for face in faces:
            face._check_options()
        tried = [
            {
                name: face.get_params()[name]
                for name in ("n_clusters", "n_components", "covariance_type")
                if hasattr(face, name)
            }
            for face in faces
        ]
        opened, fit = faces[0]._begin(
            X, where["sample_weight"], where["sample_dims"], where["variables"], more={"tried": tried}
        )
        for face in faces:
            face.seed_ = faces[0].seed_
        return _Shared(faces, opened, fit)

    def survey(self, k: int, parameters: int) -> tuple[Summary, Sample]:
        face = self.faces[0]
        return self.fit.survey(k, face._sample_rows(self.fit.rows, k, parameters), face.seed_)

    def passes_left(self, measured: int) -> int:
        return self.faces[0]._left(self.fit, self.faces[0].max_iter, measured)

    def winner(self, i: int) -> Any:
        """The estimator, told of the features and of the passes."""
        face, first = self.faces[i], self.faces[0]
        for name in ("n_features_in_", "feature_names_in_", "feature_units_"):
            if hasattr(first, name):
                setattr(face, name, getattr(first, name))
        return face._remember(self.fit)


@dataclass(frozen=True)
class _Contest:
    """Mixtures that share passes: where each starts, and what they are judged by."""

    starts: Sequence[MixtureStart]
    raced: Sequence[Sequence[Raced]]  # the starts of each on the sample, the best first
    criterion: str
    summary: Summary

    def worth(self, i: int, loglik: float, certainty: float) -> float:
        """Smaller is better."""
        mass = self.summary.mass
        return MIXTURES[self.criterion](loglik * mass, mass, self.starts[i].parameters, certainty)

    def run(self, fit: Fit, left: int) -> RacingState:
        """Passes until all that may win are done."""
        models = tuple(start.accelerated(left, self.summary.rows) for start in self.starts)
        rows = [own[0].rows for own in self.raced]
        slack = tuple(SLACK * s.parameters / (2 * max(1, n)) for s, n in zip(self.starts, rows, strict=True))
        racing = Racing(models, slack, self.worth)
        began = racing.start([own[0].model for own in self.raced])
        ended: RacingState
        (ended,) = fit.run([racing], [began], "select", "log-likelihood")
        return ended

    def judged(self, ended: RacingState) -> dict[str, list[Any]]:
        """The figures of each model that took part."""
        each = range(len(self.starts))
        outcomes = [_outcome(ended, i) for i in each]
        logliks = [
            state.value if outcome == "dropped" else state.score / self.summary.mass
            for state, outcome in zip(ended.states, outcomes, strict=True)
        ]
        return {
            "score": [self.worth(i, logliks[i], ended.states[i].certainty) for i in each],
            "loglik": logliks,
            "parameters": [start.parameters for start in self.starts],
            "passes": list(ended.passes),
            "outcome": outcomes,
        }

    def losers(self, n_init: int) -> dict[str, list[list[Any]]]:
        """The figures of all starts on the sample."""
        return {
            "score": [[self.worth(i, r.merit, np.nan) for r in own] for i, own in enumerate(self.raced)],
            "loglik": [[r.merit for r in own] for own in self.raced],
            "parameters": [[start.parameters] * n_init for start in self.starts],
            "passes": [[0] * n_init for _ in self.starts],
            "outcome": [["sample"] * n_init for _ in self.starts],
        }


def _mixtures(X: Source, asked: Asked, n_init: int, where: Mapping[str, Any], options: Any) -> Selection:
    ks, names, criterion = asked.ks, asked.names, asked.criterion
    faces = [GaussianMixture(k, covariance_type=name, n_init=n_init, **options) for k in ks for name in names]
    shared = _Shared.of(faces, X, where)
    with shared.fit as fit:
        most = max(face._family().n_parameters(face.n_components, fit.rows.d) for face in faces)
        summary, sample = shared.survey(ks[-1], most)
        if summary.mass <= ks[-1]:
            raise InputError(
                f"sample_weight sums to {summary.mass:.6g} over {summary.rows} rows, no more than there are "
                "components; a criterion takes weights for counts: scale them, e.g. to a mean of one"
            )
        starts = [MixtureStart.of(face, fit, summary, sample) for face in faces]
        contest = _Contest(starts, _raced(starts, n_init, summary.rows), criterion, summary)
        ended = contest.run(fit, shared.passes_left(0))
    judged = contest.judged(ended)
    done = np.array([outcome in ("converged", "exhausted") for outcome in judged["outcome"]])
    if not done.any():
        raise CollapsedComponentError(next(state.why for state in ended.states if state.why))
    best = int(np.argmin(np.where(done, judged["score"], np.inf)))
    face = shared.winner(best)
    face._keep(ended.states[best], starts[best], summary.mass)
    face._warn(accelerated=True)
    losers = contest.losers(n_init)
    columns = {name: _beside(values, losers[name], n_init) for name, values in judged.items()}
    table = _table({"n_components": ks, "covariance_type": names}, n_init, columns)
    return Selection(face, table, criterion, fit.history)


def _raced(starts: Sequence[MixtureStart], n_init: int, total: int) -> list[list[Raced]]:
    """The starts of each mixture on the sample, the best first.

    Where the next larger mixture of the structure, with components merged, comes farther than the best that was drawn,
    it takes its place: a larger mixture has often found all that a smaller one missed.
    """
    raced = [start.raced(n_init, total, ENOUGH) for start in starts]
    larger: dict[Structure, Raced] = {}
    for start, own in zip(reversed(starts), reversed(raced), strict=True):  # the largest first
        above = larger.get(start.structure)
        if above is not None and np.isfinite(above.merit):
            own[0] = _challenged(start, own[0], above.model, total)
        larger[start.structure] = own[0]
    return raced


def _challenged(start: MixtureStart, winner: Raced, larger: Mixture, total: int) -> Raced:
    try:
        while larger.shape[0] > start.k:
            larger = larger.merged(start.em.floor)
    except CollapsedComponentError:
        return winner
    return start.challenged(winner, larger, total, ENOUGH)


def _outcome(ended: RacingState, i: int) -> str:
    state = ended.states[i]
    return "dropped" if state.outcome is Outcome.running else str(state.outcome.value)


def _beside(winners: Sequence[Any], others: Sequence[Sequence[Any]], n_init: int) -> list[list[Any]]:
    """One row for each model: its winner, then the starts that lost on the sample."""
    return [[winner, *its[1:n_init]] for winner, its in zip(winners, others, strict=True)]


def _table(dims: Mapping[str, Sequence[Any]], n_init: int, columns: Mapping[str, Any]) -> xr.Dataset:
    shape = (*(len(values) for values in dims.values()), n_init)
    over = (*dims, "init")
    variables = {name: (over, np.array(values).reshape(shape)) for name, values in columns.items()}
    return xr.Dataset(variables, coords={**dims, "init": np.arange(n_init)})


def _clusters(X: Source, asked: Asked, n_init: int, where: Mapping[str, Any], options: Any) -> Selection:
    ks, criterion = asked.ks, asked.criterion
    faces = [KMeans(k, n_init=n_init, **options) for k in ks]
    shared = _Shared.of(faces, X, where)
    with shared.fit as fit:
        summary, sample = shared.survey(ks[-1], 0)
        lloyd = faces[0]._lloyd(fit, summary)
        with fit.sampling():
            raced = [face._raced(n_init, fit, lloyd, summary.rows, sample) for face in faces]
        left = shared.passes_left(int(criterion != CLUSTERS[0]))
        models = [
            accelerated_lloyd(replace(lloyd, start_number=i, max_iter=left), face._least_gap())
            for i, face in enumerate(faces)
        ]
        began = [model.start(racers[0].model) for model, racers in zip(models, raced, strict=True)]
        ended = fit.run(models, began, "select", "inertia")
        scores = _scores(criterion, ended, fit, lloyd.frame, summary)
    if np.isnan(scores).all():
        raise InputError(f"{criterion} is not defined for any of these: too few rows, or too little weight")
    best = int(np.nanargmin(scores) if criterion == "davies-bouldin" else np.nanargmax(scores))
    face = shared.winner(best)
    face._keep(ended[best], lloyd.frame, shared.X, where["sample_dims"])
    face._warn(ended[best], accelerated=True)
    inertia = [[-racer.merit * summary.mass for racer in own] for own in raced]
    visits = [state.n_iter + (state.settled is not None) for state in ended]
    columns = {
        "score": _beside(scores, [[np.nan] * n_init for _ in ks], n_init),
        "inertia": _beside([state.cost for state in ended], inertia, n_init),
        "parameters": _beside([k * fit.rows.d for k in ks], [[k * fit.rows.d] * n_init for k in ks], n_init),
        "passes": _beside(visits, [[0] * n_init for _ in ks], n_init),
        "outcome": _beside([str(state.outcome.value) for state in ended], [["sample"] * n_init for _ in ks], n_init),
    }
    return Selection(face, _table({"n_clusters": ks}, n_init, columns), criterion, fit.history)


def _scores(criterion: str, ended: Sequence[LloydState], fit: Fit, frame: Frame, summary: Summary) -> list[float]:
    """The criterion of each model; but for the first, of how far apart its clusters are, which takes a pass."""
    if criterion == CLUSTERS[0]:
        scatter = float(summary.scatter.sum())
        return [criteria.calinski_harabasz(state.cost, scatter, summary.mass, state.model.k) for state in ended]
    apart = fit.ask(Together(tuple(Separate(state.model, frame) for state in ended)), "separate")
    return [_separated(criterion, state, own) for state, own in zip(ended, apart, strict=True)]


def _separated(criterion: str, state: LloydState, apart: Separation) -> float:
    if criterion == "silhouette":
        return apart.silhouette / float(apart.mass.sum())
    filled = apart.mass > 0
    return criteria.davies_bouldin(state.model.centres[filled], apart.distance[filled] / apart.mass[filled])
