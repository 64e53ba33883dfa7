"""Whether the options of a Gaussian mixture go together; each refusal says what would."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskmix.algorithms.em import OnCollapse
from daskmix.block import Array
from daskmix.errors import InputError
from daskmix.estimators.mixture_prior import check_prior
from daskmix.family import LEAST_NU


def check_given(face: Any, k: int) -> None:
    """Whether what is given, and not estimated, goes together."""
    fixed, heats = face.covariance_type == "fixed", temperatures(face.temperature)
    if fixed != (face.covariance_init is not None):
        raise InputError('covariance_type="fixed" and covariance_init go together; pass both or neither')
    if fixed and not _is_covariance(face.covariance_init):
        raise InputError("covariance_init must be positive: a number, variances (d,), or a definite matrix (d, d)")
    if fixed and (face.precisions_init is not None or face.reg_covar not in ("auto", 0)):
        raise InputError("fixed covariances are what covariance_init says; leave precisions_init and reg_covar out")
    if face.equal_weights and face.weights_init is not None:
        raise InputError("equal_weights=True leaves nothing to weights_init; pass one of them")
    if not (len(heats) and all(0 < t < np.inf for t in heats)):
        raise InputError(f"temperature={face.temperature!r} must be positive: a number, or one for each iteration")
    if face.algorithm != "em" and heats != (1.0,):
        raise InputError(f'algorithm={face.algorithm!r} has no temperature; pass algorithm="em", or leave it at 1')
    if fixed and face.prior is not None:
        raise InputError("a prior of covariances has nothing to do where they are fixed; pass one of the two")
    check_prior(face.prior)


def check_collapse(face: Any, k: int) -> None:
    """Whether what becomes of components that collapse can be done."""
    policy, least = face._option("on_collapse", [policy.value for policy in OnCollapse]), face._real("min_weight")
    most = 1.0 if policy == "drop" else 1.0 / k
    if least >= most:
        raise InputError(f"min_weight={least:g} is more than components can have; pass less than {most:g}")
    if least > 0 and policy == "keep":
        raise InputError('min_weight says when a component collapses; say what then, e.g. on_collapse="drop"')


def check_noise(face: Any, k: int) -> None:
    """Whether there can be noise, where there is to be."""
    if not face.noise:
        return
    if face.missing == "em":
        raise InputError('noise has no density for a part of a row; pass missing="drop" with noise=True')
    if face.covariance_type == "fixed":
        raise InputError(
            "beside fixed covariances noise would take every row that they are too small for; pass another "
            "covariance_type with noise=True"
        )


def check_nu(face: Any, k: int) -> None:
    """Whether components can be Student's t, where they are to be."""
    if face.nu is None:
        return
    estimated = isinstance(face.nu, str) and face.nu == "estimate"
    if not estimated and (isinstance(face.nu, bool) or not _are_positive(face.nu, k)):
        raise InputError(f'nu={face.nu!r} must be positive: a number, or one for each component, or "estimate"')
    if not estimated and np.min(face.nu) < LEAST_NU:
        raise InputError(f"nu={face.nu!r} must be at least {LEAST_NU}: draws with heavier tails are beyond all numbers")
    if temperatures(face.temperature) != (1.0,):
        raise InputError("Student's t has no temperature; leave temperature at 1, or nu out")
    if face.prior is not None:
        raise InputError("a prior is one of Gaussian components; pass prior or nu")
    if face.missing == "em":
        raise InputError('missing="em" is for Gaussian components; pass missing="drop", or leave nu out')
    if face.noise:
        raise InputError("noise and the tails of Student's t are there for the same rows; pass noise or nu")
    if estimated and face.fixed is not None:
        raise InputError('fixed holds no degrees of freedom; pass them as numbers, not nu="estimate"')


def temperatures(given: Any) -> tuple[float, ...]:
    """One for each of the first iterations."""
    return tuple(np.atleast_1d(numbers(given)).ravel().tolist())


def numbers(given: Any) -> Array:
    """As an array; NaN, which is refused with what is not positive, where it holds something else."""
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        return np.array(np.nan)


def _are_positive(given: Any, k: int) -> bool:
    """Whether it is a positive number, or k of them."""
    values = numbers(given)
    return values.shape in ((), (k,)) and bool((np.isfinite(values) & (values > 0)).all())


def _is_covariance(given: Any) -> bool:
    values = numbers(given)
    if values.ndim > 2 or not np.isfinite(values).all():
        return False
    if values.ndim == 2:
        return values.shape[0] == values.shape[1] and bool(np.linalg.eigvalsh(values).min() > 0)
    return bool((values > 0).all())
