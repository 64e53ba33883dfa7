"""Where the fits of mixtures start: given, drawn from the sample, or the winner of a race there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from daskmix import structures
from daskmix.algorithms.acceleration import Accelerated, LocalSteps, accelerated_steps
from daskmix.algorithms.em import EM, OnCollapse
from daskmix.algorithms.lloyd import Lloyd
from daskmix.algorithms.seeding import crowded, plus_plus, random_rows
from daskmix.block import Array
from daskmix.centroids import Centroids
from daskmix.covariance import Covariance, FullCovariance
from daskmix.errors import CollapsedComponentError, InputError
from daskmix.estimators.mixture_held import Given, explicit, held_components, shaped
from daskmix.family import Family
from daskmix.fitting import Fit, sampled
from daskmix.given import Noise
from daskmix.kernels import Frame, Order
from daskmix.kernels.reference import moments, nearest, nearest_observed
from daskmix.mixture import Mixture, estimate
from daskmix.moments import Moments, Origin, on_diagonal
from daskmix.race import Raced, Rung, ladder, local_steps, race
from daskmix.rows import beside
from daskmix.sampling import Sample, Summary, completed
from daskmix.sharing import Explain, Learn
from daskmix.structures import Fixed, Structure

if TYPE_CHECKING:
    from daskmix.estimators.mixture_base import MixtureEstimator

MCLUST: dict[str, Structure] = {
    "EII": structures.EqualSpherical(),
    "VII": structures.Spherical(),
    "EEI": structures.EqualDiagonal(),
    "VEI": structures.DiagonalEqualShape(),
    "EVI": structures.DiagonalEqualVolume(),
    "VVI": structures.Diagonal(),
    "EEE": structures.Tied(),
    "VEE": structures.OwnVolume(),
    "EVE": structures.EqualVolumeAndOrientation(),
    "VVE": structures.EqualOrientation(),
    "EEV": structures.OwnOrientation(),
    "VEV": structures.EqualShape(),
    "EVV": structures.EqualVolume(),
    "VVV": structures.Full(),
}
ALIASES = {"full": "VVV", "tied": "EEE", "diag": "VVI", "spherical": "VII"}
STRUCTURES = {**{alias: MCLUST[name] for alias, name in ALIASES.items()}, **MCLUST}
# How starts of a race are drawn, by turns: from K-means alone most end in the same few optima.
RACERS = ("kmeans", "random_from_data")
ROWS_PER_PARAMETER = 5  # at least, where starts race on the sample
AUTO_FLOOR = 1e-6  # of each feature's variance
NOISE = 0.05  # its weight in a start


def fitting_frame(summary: Summary, structure: Structure, dtype: np.dtype) -> Frame:
    variance = summary.variance
    if structure.common_scale:
        variance = np.full_like(variance, variance.mean())
    return Frame.of(summary.mean, np.sqrt(variance), dtype)


def smoothing(summary: Summary, reg_covar: float | None, structure: Structure) -> Array:
    """The smoothing of each feature: (d,), in the units of X."""
    if isinstance(structure, Fixed):
        return np.zeros(len(summary.mean))  # what is given needs none
    if reg_covar is not None:
        return np.full(len(summary.mean), reg_covar)
    variance = summary.variance
    # What rounding leaves of a constant feature's variance is not one; any number will do in its place.
    varies = np.sqrt(variance) > 1e-12 * np.maximum(np.abs(summary.low), np.abs(summary.high))
    return AUTO_FLOOR * np.where(varies, variance, 1.0)


def positive(name: str, given: Any, order: Order, d: int) -> Array:
    """A variance (), variances (d,) or a covariance (d, d), as the order has it."""
    matrix = order in (Order.full, Order.pooled)
    values = shaped(name, given, {Order.trace: (), Order.diagonal: (d,)}.get(order, (d, d)))
    if not np.all(np.linalg.eigvalsh(values) > 0 if matrix else values > 0):
        raise InputError(f"{name} must be positive, a matrix positive definite")
    return values


def spread(fit: Fit, summary: Summary, frame: Frame, order: Order) -> Array:
    """The covariance of all rows, as much of it as the order keeps; what the survey has not seen takes a pass."""
    # The unbiased estimate counts rows, as long as weights do.
    count = summary.mass - 1.0 if summary.mass > 1.0 else summary.mass
    if order in (Order.diagonal, Order.trace):
        variances = summary.variance * (summary.mass / count)
        return np.asarray(variances.mean()) if order is Order.trace else variances
    if fit.covariance is None:
        variance = np.where(summary.variance > 0, summary.variance, 1.0) * frame.scale**2
        one = FullCovariance.of(np.diag(variance)[None])
        whole = Mixture(np.ones(1), frame.enter(summary.mean)[None], one, Family(MCLUST["VVV"]))
        question = Explain(whole, frame, whole.path(fit.rows.dtype), np.zeros(fit.rows.d))
        scatter = fit.ask(question, "covariance").scatter(Order.full)[0]
        fit.covariance = scatter / np.outer(frame.scale, frame.scale) / count
    found: Array = fit.covariance
    return found


def _noise(summary: Summary) -> Noise:
    """Uniform in the box that the rows are in."""
    flat = ~(summary.high > summary.low)
    if flat.any():
        raise InputError(f"feature {int(flat.argmax())} is constant, so that noise has no box; leave it out")
    return Noise(summary.low.astype(np.float64), summary.high.astype(np.float64))


class MixtureStart:
    """Where the starts of one fit come from."""

    def __init__(
        self, face: MixtureEstimator, k: int, family: Family, fit: Fit, em: EM, summary: Summary, sample: Sample
    ) -> None:
        self.face, self.k, self.family, self.fit, self.em = face, k, family, fit, em
        self.structure = family.structure
        self.frame, self.summary, self.sample = em.frame, summary, sample
        self.variance = np.where(summary.variance > 0, summary.variance, 1.0) * em.frame.scale**2

    # Made when they are needed, for a race needs few rows of them.
    @cached_property
    def x(self) -> Array:
        """The sample in the frame, completed."""
        return completed(self.frame.enter(self.sample.x.astype(np.float64)), self.sample.w)

    @cached_property
    def observed(self) -> Array:
        """The same with its gaps, where it has some."""
        return self.frame.enter(self.sample.x.astype(np.float64)) if np.isnan(self.sample.x).any() else self.x

    @cached_property
    def given(self) -> Covariance | None:
        """The covariances that are given and stay, in the frame."""
        if not isinstance(self.structure, Fixed):
            return None
        d, values = self.fit.rows.d, np.asarray(self.face.covariance_init, dtype=np.float64)
        if values.shape not in ((), (d,), (d, d)):
            raise InputError(f"covariance_init has shape {values.shape}; pass a number, ({d},) or ({d}, {d})")
        one = values if self.structure.order is Order.pooled else values[None]
        return self.structure.covariance.of(one).rescaled(self.frame.scale)

    @staticmethod
    def of(face: MixtureEstimator, fit: Fit, summary: Summary, sample: Sample) -> MixtureStart:
        """From parameters of the face that have been checked."""
        k, family, dtype = int(face.n_components), face._family(), fit.rows.dtype
        frame = fitting_frame(summary, family.structure, dtype)
        reg_covar = None if isinstance(face.reg_covar, str) else float(face.reg_covar)
        floor = smoothing(summary, reg_covar, family.structure) * frame.scale**2
        if face.noise:
            family = replace(family, noise=_noise(summary))
        prior = face._prior(fit, summary, frame)
        if prior is not None:
            family = replace(family, prior=prior.entered(frame.shift, frame.scale))
        em = face._em(frame, dtype, floor)
        start = MixtureStart(face, k, family, fit, em, summary, sample)
        held = start.known.held(held_components(face.fixed, k))
        return start if held is None else start.of_family(replace(family, held=held))

    def of_family(self, family: Family) -> MixtureStart:
        """The same for other mixtures."""
        return MixtureStart(self.face, self.k, family, self.fit, self.em, self.summary, self.sample)

    @property
    def parameters(self) -> int:
        """Free parameters of the mixture."""
        return self.family.n_parameters(self.k, self.fit.rows.d)

    def among(self, sample: Sample) -> MixtureStart:
        """The same on other rows."""
        return MixtureStart(self.face, self.k, self.family, self.fit, self.em, self.summary, sample)

    def raced(self, starts: int, total: int, each: int = ROWS_PER_PARAMETER) -> list[Raced]:
        """Several starts, the best first, after as much of EM on the sample as the passes are worth.

        But on `each` rows for each parameter at least.
        """
        rungs = self._rungs(starts, total, each)
        few = self.among(self.sample.best(rungs[0].rows)).draws(RACERS, rungs[0].racers)
        return self._race(few, rungs)

    def challenged(self, winner: Raced, model: Mixture, total: int, each: int = ROWS_PER_PARAMETER) -> Raced:
        """The winner, or this model where it comes farther on the rows that the winner was solved on."""
        (challenger,) = self._race([model], self._rungs(1, total, each))
        return challenger if challenger.merit > winner.merit else winner

    def _rungs(self, starts: int, total: int, each: int) -> tuple[Rung, ...]:
        least, whole = each * self.parameters, self.face.sample_size != "auto"
        return ladder(total, len(self.sample), least, starts, whole)

    def _race(self, models: list[Mixture], rungs: tuple[Rung, ...]) -> list[Raced]:
        def runner(rung: Rung) -> Accelerated:
            # On few rows components collapse which have enough among all: such a start loses the race.
            em = replace(self.em, tol=0.0, max_iter=rung.passes, on_collapse=OnCollapse.keep)
            return Accelerated(em, rung.gap_tol)

        with self.fit.sampling():
            return race(runner, models, self.sample, rungs, self.fit, merit=lambda state: state.score)

    def accelerated(self, max_iter: int, total: int) -> Accelerated:
        """EM, accelerated, with steps on the sample after each pass where that has rows enough."""
        em = replace(self.em, tol=0.0, max_iter=max_iter)
        rows, steps = local_steps(total, len(self.sample), self.parameters)
        # A prior weighs as much as so many rows, and of these the sample has fewer.
        if steps == 1 or self.family.prior is not None:
            return Accelerated(em, self.face._least_gap())
        local = LocalSteps(em, self.fit.part_of(self.sample, rows), self.fit.ask_sample, steps)
        return accelerated_steps(local, self.face._least_gap())

    @cached_property
    def known(self) -> Given:
        """What is given of the mixture: by the last fit, by a fitted start, and by explicit parameters over these."""
        face, init = self.face, self.face.init_params
        said = explicit(face, self.structure, self.frame, self.k, self.fit.rows.d)
        if face._warm():
            model = self._of_model(face)
        elif self._has_parameters(init):
            model = said.over(self._of_model(init))
        else:
            return said
        return Given(model.weights, model.means, model.covariance, np.ones(self.k, dtype=bool))

    def _has_parameters(self, init: Any) -> bool:
        """Whether it is a fitted mixture of these covariances."""
        return hasattr(init, "covariances_") and STRUCTURES.get(init.covariance_type) == self.structure

    def models(self, n_init: int) -> list[Mixture]:
        """One mixture for each start, in the frame."""
        init, known = self.face.init_params, self.known
        whole = not (np.isnan(known.weights).any() or np.isnan(known.means).any()) and known.known.all()
        if known.covariance is not None and whole:
            weights = self._weights(np.full(self.k, 1.0 / self.k))
            even = Mixture(weights, known.means, known.covariance, self.family, nu=self._nu())
            return [known.over(even)]
        if hasattr(init, "fit"):
            check_is_fitted(init)
            centres = init.means_ if hasattr(init, "means_") else init.cluster_centers_
            first = self._near(self.frame.enter(shaped("init_params", centres, (self.k, self.fit.rows.d))))
            return [known.over(first)]
        if not isinstance(init, str):
            return [known.over(self._of_shares(np.asarray(init)))]
        if not np.isnan(known.means).any():
            return [known.over(self._near(known.means))]
        return self.draws((init,), n_init)

    def draws(self, inits: Sequence[str], count: int) -> list[Mixture]:
        """So many mixtures, drawn in these ways by turns."""
        seeds = [np.random.default_rng([self.face.seed_, start]) for start in range(count)]
        with self.fit.sampling():
            robust = self.family.noise is not None or self.family.freedom is not None
            among = self._without_clutter() if robust else self
            return [among.known.over(among._drawn(init, rng)) for init, rng in zip(cycle(inits), seeds, strict=False)]

    def _without_clutter(self) -> MixtureStart:
        """The same on the rows of the sample that have neighbours: K-means would spend centres on the others."""
        keep = crowded(self.x, 2 * NOISE)
        return self.among(self.sample.at(keep)) if keep.sum() > self.k else self

    def _of_model(self, fitted: Any) -> Mixture:
        if len(fitted.means_) != self.k:
            raise InputError(
                f"the start has {len(fitted.means_)} components, but n_components={self.k}; pass "
                f"n_components={len(fitted.means_)}, or start anew"
            )
        means = shaped("the start's means", fitted.means_, (self.k, self.fit.rows.d))
        covariance = self.structure.covariance(fitted.covariances_, fitted.precisions_cholesky_)
        model = Mixture(self._weights(fitted.weights_, fitted), means, covariance, self.family)
        return model.rescaled(self.frame.scale, self.frame.enter(means))

    def _nu(self) -> Array | None:
        """Degrees of freedom to start from: where they are estimated those of the last fit, or of a fitted start."""
        freedom, init = self.family.freedom, self.face.init_params
        if freedom is None:
            return None
        start = self.face if self.face._warm() else init if self._has_parameters(init) else None
        return freedom.known(getattr(start, "nu_", None))

    def _weights(self, own: Array, fitted: Any = None) -> Array:
        """Weights of components, with the noise's where there is some."""
        if self.family.noise is None:
            return own / own.sum() if hasattr(fitted, "noise_weight_") else own
        noise = getattr(fitted, "noise_weight_", NOISE)
        return np.append(own * ((1.0 - noise) / own.sum()), noise)

    def _drawn(self, init: str, rng: np.random.Generator) -> Mixture:
        if init == "random":
            share, known = rng.random((len(self.x), self.k)), self.sample.known
            share[known >= 0] = known[known >= 0, None] == np.arange(self.k)
            share *= (self.sample.w / share.sum(axis=1))[:, None]
            return self._estimated(Moments(*moments(self.x, share, self.structure.order), 0.0, 0.0, Origin()))
        if init == "random_from_data":
            return self._near(self._anchored(random_rows(self.x, self.sample.w, self.k, rng)))
        if init == "k-means++":
            return self._near(self._spread(1.0, rng))
        # K-means measures in the units of X, as scikit-learn's does.
        units = 1.0 / self.frame.scale
        plain = Frame(np.zeros(len(units)), np.ones(len(units)))
        lloyd = Lloyd(plain, 1e-4 * float((self.variance * units**2).mean()))
        centres = self._spread(units, rng)
        rows = sampled(self.sample, self.observed * units)
        (ended,) = self.fit.on_sample([lloyd], [lloyd.start(Centroids(centres))], rows)
        return self._near(self._anchored(ended.model.centres, units), units)

    @cached_property
    def anchors(self) -> Array | None:
        """Means that are given, or of rows whose component is known, NaN for others: (k, d)."""
        means = self.known.means
        if self.fit.known_means is not None:
            means = np.where(np.isnan(means), self.frame.enter(self.fit.known_means), means)
        return None if np.isnan(means).all() else means

    def _anchored(self, centres: Array, units: Array | float = 1.0) -> Array:
        """With the anchors in their places."""
        anchors = self.anchors
        return centres if anchors is None else np.where(np.isnan(anchors), centres, anchors * units)

    def _spread(self, units: Array | float, rng: np.random.Generator) -> Array:
        """Centres far apart, also from the anchors."""
        x, anchors = self.observed * units, self.anchors
        if anchors is None:
            return plus_plus(x, self.sample.w, self.k, rng)
        there = ~np.isnan(anchors).any(axis=1)
        centres = np.empty_like(anchors)
        # The first of them are those that are given.
        places = np.concatenate([np.flatnonzero(there), np.flatnonzero(~there)])
        centres[places] = plus_plus(x, self.sample.w, self.k, rng, anchors[there] * units)
        return centres

    def _near(self, centres: Array, units: Array | float = 1.0) -> Mixture:
        """Every row of the sample to its nearest centre, which stands for what is missing."""
        x, order = self.observed, self.structure.order
        cluster, _ = (nearest if x is self.x else nearest_observed)(x * units, centres)
        cluster = np.where(self.sample.known >= 0, self.sample.known, cluster)
        absent, x = np.isnan(x), np.where(np.isnan(x), centres[cluster] / units, x)
        own = [cluster == j for j in range(self.k)]
        each = [moments(x[rows], self.sample.w[rows, None], order) for rows in own]
        mass, first, second = (np.stack(values) for values in zip(*each, strict=True))
        second = second.sum(axis=0) if order is Order.pooled else second[:, 0]
        if absent.any():
            second = second + on_diagonal(self._unseen(x - centres[cluster] / units, absent, own), order)
        return self._estimated(Moments(mass[:, 0], first[:, 0], second, 0.0, 0.0, Origin()))

    def _unseen(self, away: Array, absent: Array, own: list[Array]) -> Array:
        """What values that are missing would add to the scatter: as much as those that are there, each (k, d)."""
        lacking = np.stack([self.sample.w[rows] @ absent[rows] for rows in own])
        seen = np.stack([self.sample.w[rows] @ ~absent[rows] for rows in own])
        scatter = np.stack([self.sample.w[rows] @ away[rows] ** 2 for rows in own])
        return lacking * np.where(seen > 0, scatter / np.where(seen > 0, seen, 1.0), self.variance)

    def _of_shares(self, given: Array) -> Mixture:
        total = self.fit.rows.counted("init_params")
        if given.shape not in ((total,), (total, self.k)):
            raise InputError(
                f"init_params has shape {given.shape}; pass labels ({total},) or responsibilities ({total}, {self.k})"
            )
        plain, self.fit.rows = self.fit.rows, beside(self.fit.rows, given)
        mean = self.frame.enter(self.summary.mean)
        learn = Learn(self.k, self.structure.order, self.frame, given.ndim == 1, mean, self.variance)
        answer = self.fit.ask(learn, "labels")
        self.fit.rows = plain
        left = self.summary.mass - float(answer.mass.sum())
        return self._estimated(answer, left / self.summary.mass if left > 0 else NOISE)

    def _estimated(self, sums: Moments, noise: float = NOISE) -> Mixture:
        """The mixture with these moments, and with so much of noise where there is some."""
        empty = sums.mass <= 0
        if empty.any():
            # A start without rows: anywhere among the others, as wide as the data.
            sums = replace(sums, mass=np.where(empty, 1e-3 * sums.mass.sum() / self.k, sums.mass))
        floor, total = self.em.floor, sums.mass.sum()
        if self.family.noise is not None:
            sums = replace(sums, mass=np.append(sums.mass, noise / (1.0 - noise) * total))
        try:
            return estimate(sums, self.family, floor, self.given)
        except CollapsedComponentError:
            # A start may be widened: it is only a start.
            return estimate(sums, self.family, np.maximum(floor, 1e-3 * self.variance), self.given)
