"""`plan`: what a fit will cost, before anything is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from dask.utils import format_bytes
from sklearn.base import clone

from daskmix.errors import InputTypeError
from daskmix.estimators import BayesianGaussianMixture, BisectingKMeans, GaussianMixture, KMeans
from daskmix.estimators.base import Source
from daskmix.estimators.kmeans import ROUNDS
from daskmix.estimators.mixture_base import MixtureEstimator
from daskmix.estimators.mixture_prior import needs_covariance
from daskmix.kernels import Order
from daskmix.memory import task_bytes, worker_bytes, workers_for
from daskmix.rows import Rows

# Passes of a whole fit where it is accelerated, and of the textbook's: no more than an idea, for data differ.
ACCELERATED, TEXTBOOK = 10, 30
LEVEL = 3  # of the splits of one depth, which start from the sample's
HEAVY = 0.1  # of what a task reads: then its answer is no small message any more


@dataclass(frozen=True)
class Plan:
    """What a fit will cost. Numbers are None where the lengths of the chunks are not known beforehand.

    Attributes
    ----------
    rows, chunks : int
        Of the data.
    tasks : int
        In each pass.
    accelerated : bool
        Whether the fit goes beyond the textbook's iteration.
    passes, passes_at_most : int
        Reads of every chunk: as they usually come out, and what the options allow.
    bytes_per_pass : int
        Of the rows, decoded; passes after the first may find them in the cache.
    sample_bytes : int
        Of the sample, as it was drawn and as it is computed on, in the process that calls `fit`.
    model_bytes, answer_bytes : int
        What travels to a worker once in each pass, and back from each task.
    task_bytes : int
        Most that one task holds: the chunk it computes on, the next one, a tile and its answer.
    worker_bytes : int
        Most that a worker's process of `threads` takes, Python and its libraries among it, beside what it keeps in its
        cache.
    threads : int
        Of a worker.
    warnings : tuple of str
    """

    rows: int | None
    chunks: int
    tasks: int
    accelerated: bool | None
    passes: int
    passes_at_most: int
    bytes_per_pass: int | None
    sample_bytes: int
    model_bytes: int
    answer_bytes: int
    task_bytes: int | None
    worker_bytes: int | None
    threads: int
    warnings: tuple[str, ...]

    def facts(self) -> dict[str, str]:
        """The plan in words, line by line."""
        unknown = "not known before the first pass"
        rows = unknown if self.rows is None else f"{self.rows:,}"
        return {
            "rows": f"{rows}, in {self.chunks:,} chunks",
            "passes": f"about {self.passes}, at most {self.passes_at_most}",
            "bytes per pass": _size(self.bytes_per_pass, unknown),
            "tasks per pass": f"{self.tasks:,}",
            "sample": f"{format_bytes(self.sample_bytes)}, in this process",
            "model": f"{format_bytes(self.model_bytes)}; {format_bytes(self.answer_bytes)} from each task",
            "memory": _size(self.worker_bytes, unknown, f" for a worker of {self.threads} threads, beside its cache"),
        }


def _size(nbytes: int | None, unknown: str, of_what: str = "") -> str:
    return unknown if nbytes is None else format_bytes(nbytes) + of_what


def plan(
    estimator: Any,
    X: Source,
    *,
    sample_weight: Any = None,
    sample_dims: Any = None,
    variables: Any = None,
    threads: int | None = None,
) -> Plan:
    """What `estimator.fit(X)` will cost: passes, bytes, tasks and memory. Only metadata are read.

    Parameters
    ----------
    estimator : KMeans, BisectingKMeans, GaussianMixture or BayesianGaussianMixture
        As it would be fitted.
    X, sample_weight, sample_dims, variables
        As its `fit` takes them.
    threads : int
        Of a worker; by default those of the active cluster's workers, or of this process.

    Returns
    -------
    Plan

    Raises
    ------
    InputError, InputTypeError
        X or an option cannot be used.
    StoreNotFoundError, VariableNotFoundError
        There is no store or variable of that name.
    """
    if not isinstance(estimator, KMeans | BisectingKMeans | MixtureEstimator):
        raise InputTypeError(
            f"{type(estimator).__name__} is neither K-means nor a mixture of daskmix; pass one of these"
        )
    face = clone(estimator)
    k = face._check_options()
    rows = face._rows(face._opened(X, variables), sample_weight, sample_dims, reset=True)
    d = rows.d
    parameters = face._family().n_parameters(k, d) if isinstance(face, MixtureEstimator) else 0
    sample = face._sample_rows(rows, k, parameters)
    if rows.total is not None:
        sample = min(sample, rows.total)
    accelerated = estimator._may_accelerate() and (None if rows.total is None else rows.total > sample)
    usual, most = _passes(face, k, estimator._warm(), accelerated)
    # The sample is drawn again where most rows turn out to be missing, or to weigh nothing.
    most += face.missing != "raise" or sample_weight is not None
    if face.max_passes is not None:
        most = min(most, face.max_passes)
    nodes = 2 * k if isinstance(face, BisectingKMeans) else k
    model = 8 * (parameters + 1) if isinstance(face, MixtureEstimator) else 8 * nodes * (1 + d)
    answer = face._answer_bytes(k, d)
    task = task_bytes(rows, answer)
    threads = threads or workers_for(rows).threads
    return Plan(
        rows=rows.total,
        chunks=sum(part.chunks for part in rows.parts),
        tasks=len(rows.bundles),
        accelerated=accelerated,
        passes=min(usual, most),
        passes_at_most=most,
        bytes_per_pass=rows.nbytes,
        sample_bytes=2 * sample * d * rows.dtype.itemsize,
        model_bytes=model,
        answer_bytes=answer,
        task_bytes=task,
        worker_bytes=worker_bytes(rows, task, threads),
        threads=threads,
        warnings=_warnings(rows, answer),
    )


def _passes(face: Any, k: int, warm: bool, accelerated: bool | None) -> tuple[int, int]:
    """As they usually come out, and as many as the options allow."""
    if isinstance(face, BisectingKMeans):
        # Of a tree of k leaves 2 (k - 1) may have to be tried, some of them for nothing, and one after the other.
        return 1 + LEVEL * (k - 1).bit_length(), 1 + 2 * (k - 1) * (face.max_iter + 1)
    before = (0 if warm else _seeding(face)) + _covariance(face)
    # Of a posterior the bound is known, so that no pass measures what came out.
    most = face.max_iter + before + (1 if isinstance(face, BayesianGaussianMixture) else 2)
    return before + (TEXTBOOK if accelerated is False else ACCELERATED), most


def _covariance(face: Any) -> bool:
    """Whether a pass measures the covariance of all rows, for a prior."""
    if isinstance(face, BayesianGaussianMixture):
        return face.covariance_prior is None and face._structure().order in (Order.full, Order.pooled)
    return isinstance(face, GaussianMixture) and needs_covariance(face.prior, face._structure().order)


def _seeding(face: Any) -> int:
    """Passes that the start takes."""
    start = face.init if isinstance(face, KMeans) else face.init_params
    if isinstance(start, str):
        return ROUNDS + 1 if start == "k-means||" else 0
    fitted_or_drawn = hasattr(start, "fit") or callable(start)
    centres = isinstance(face, KMeans) and np.ndim(start) == 2 if not fitted_or_drawn else True
    return 0 if centres else 1


def _warnings(rows: Rows, answer: int) -> tuple[str, ...]:
    """What is better changed before the fit."""
    found = []
    each = None if rows.nbytes is None else rows.nbytes / max(1, len(rows.bundles))
    if each is not None and answer > HEAVY * each:
        found.append(
            f"each task reads {format_bytes(int(each))} and answers with {format_bytes(answer)} of statistics: merging "
            "them will dominate; take fewer components or features, diagonal covariances, or larger chunks"
        )
    return tuple(found)
