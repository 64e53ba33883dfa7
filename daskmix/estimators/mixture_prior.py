"""What the option `prior` of a mixture says."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskmix.block import Array
from daskmix.errors import InputError
from daskmix.estimators.mixture_held import shaped
from daskmix.estimators.mixture_start import MCLUST, positive, spread
from daskmix.family import Conjugate
from daskmix.fitting import Fit
from daskmix.kernels import Frame, Order
from daskmix.sampling import Summary
from daskmix.structures import Structure

NAMES, SHRINKAGE = ("shrinkage", "mean", "dof", "scale"), 0.01
EQUAL = tuple(MCLUST[name] for name in ("EII", "EEI", "EEE"))  # of one covariance for all components


def check_prior(prior: Any) -> None:
    """Refuse what is no prior of any rows."""
    if prior is None or (isinstance(prior, str) and prior == "default"):
        return
    unknown = [name for name in prior if name not in NAMES] if isinstance(prior, dict) else [prior]
    if unknown:
        raise InputError(f'prior has {unknown[0]!r}; pass "default", or a dict with some of {", ".join(NAMES)}')


def given_prior(prior: Any, order: Order, d: int) -> dict[str, Any]:
    """What is given, if it suits rows of d features."""
    given = dict(prior) if isinstance(prior, dict) else {}
    least = d - 1 if order in (Order.full, Order.pooled) else 0
    for name, above in (("shrinkage", 0), ("dof", least)):
        if name in given and not shaped(f"prior's {name}", given[name], ()) > above:
            raise InputError(f"prior has {name}={given[name]!r}, which must be a finite number above {above}")
    if "mean" in given:
        given["mean"] = shaped("prior's mean", given["mean"], (d,))
    if "scale" in given:
        one_for_all = order is Order.diagonal and np.ndim(given["scale"]) == 0
        scale = np.full(d, given["scale"]) if one_for_all else given["scale"]
        given["scale"] = positive("prior's scale", scale, order, d)
    return given


def needs_covariance(prior: Any, order: Order) -> bool:
    """Whether the covariance of all rows must be known, which takes a pass."""
    given = isinstance(prior, dict) and "scale" in prior
    return prior is not None and not given and order in (Order.full, Order.pooled)


def conjugate(prior: Any, structure: Structure, k: int, fit: Fit, summary: Summary, frame: Frame) -> Conjugate:
    """The prior, in the units of X, with mclust's defaults for what is not given."""
    d = fit.rows.d
    given = given_prior(prior, structure.order, d)
    if "scale" not in given:
        given["scale"] = _expected(structure.order, fit, summary, frame) / k ** (2 / d)
    return Conjugate(
        float(given.get("shrinkage", SHRINKAGE)),
        given.get("mean", summary.mean),
        float(given.get("dof", d + 2)),
        given["scale"],
        structure in EQUAL,
    )


def _expected(order: Order, fit: Fit, summary: Summary, frame: Frame) -> Array:
    """The covariance of the rows; of variances their mean."""
    d = fit.rows.d
    if order in (Order.full, Order.pooled):
        enough = summary.rows > d  # fewer have no covariance
        return spread(fit, summary, frame, order) if enough else np.diag(spread(fit, summary, frame, Order.diagonal))
    mean = spread(fit, summary, frame, Order.trace)
    return mean if order is Order.trace else np.full(d, mean)
