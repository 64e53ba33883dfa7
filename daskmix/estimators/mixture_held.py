"""What the options say of parameters that are given: where a fit starts, and what of it stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np

from daskmix.block import Array
from daskmix.covariance import Covariance, beside
from daskmix.errors import InputError
from daskmix.given import Held
from daskmix.kernels import Frame, Order
from daskmix.mixture import Mixture
from daskmix.moments import TINY
from daskmix.structures import Structure

NAMES = ("weights", "means", "covariances")


@dataclass(frozen=True)
class Given:
    """Parameters in a frame; NaN, and components that are not `known`, where nothing is given."""

    weights: Array  # (k,), or (k + 1,) with that of the noise
    means: Array  # (k, d)
    covariance: Covariance | None
    known: Array  # (k,) of which components the covariance is given

    def over(self, model: Mixture) -> Mixture:
        """That mixture with these parameters, as far as they go."""
        means = np.where(np.isnan(self.means), model.means, self.means)
        covariance = self._over(model.covariance)
        return replace(model, weights=self._weights_over(model.weights), means=means, covariance=covariance)

    def _weights_over(self, weights: Array) -> Array:
        given = self.weights
        if len(given) < len(weights):  # of the noise nothing is given
            given = np.append(given * (1.0 - weights[-1]), np.nan)
        free = np.isnan(given)
        if free.all():
            return weights
        left = 1.0 - given[~free].sum()
        return np.where(free, left * weights / max(weights[free].sum(), TINY), given)

    def _over(self, covariance: Covariance) -> Covariance:
        return covariance if self.covariance is None else covariance.with_components(self.known, self.covariance)

    def held(self, which: Mapping[str, Array]) -> Held | None:
        """What of this stays, by the components whose weights, means and covariances do.

        Raises
        ------
        InputError
            Where it is not given.
        """
        there = {"weights": ~np.isnan(self.weights[: len(self.known)]), "means": ~np.isnan(self.means).any(axis=1)}
        there["covariances"] = self.known
        sources = {"weights": "weights_init", "means": "means_init", "covariances": "precisions_init"}
        for name, mask in which.items():
            if (mask & ~there[name]).any():
                j = int(np.flatnonzero(mask & ~there[name])[0])
                raise InputError(
                    f"fixed holds the {name} of component {j}, which nothing says; pass {sources[name]}, a fitted "
                    "mixture as init_params, or warm_start=True"
                )
        if not any(mask.any() for mask in which.values()):
            return None
        weights = np.where(which["weights"], self.weights[: len(self.known)], np.nan)
        means = np.where(which["means"][:, None], self.means, np.nan)
        own = which["covariances"]
        return Held(weights, means, own, self.covariance if own.any() else None)


def held_of(model: Mixture, fixed: Any) -> Held | None:
    """What stays of this mixture."""
    k = model.shape[0]
    whole = Given(model.weights, model.means, model.covariance, np.ones(k, dtype=bool))
    return whole.held(held_components(fixed, k))


def explicit(face: Any, structure: Structure, frame: Frame, k: int, d: int) -> Given:
    """What weights_init, means_init and precisions_init say; they may have gaps where `fixed` holds something."""
    gaps = face.fixed is not None
    weights, means = np.full(k, np.nan), np.full((k, d), np.nan)
    covariance, known = None, np.zeros(k, dtype=bool)
    if face.weights_init is not None:
        weights = shaped("weights_init", face.weights_init, (k,), gaps)
        total, whole = np.nansum(weights), not np.isnan(weights).any()
        if (weights < 0).any() or not (np.isclose(total, 1.0) if whole else total < 1.0):
            raise InputError(f"weights_init sums to {total:.6g}; weights must be positive and sum to 1")
    if face.means_init is not None:
        means = frame.enter(shaped("means_init", face.means_init, (k, d), gaps))
    if face.precisions_init is not None:
        held = bool(held_components(face.fixed, k)["covariances"].any())
        covariance, known = _covariance(face.precisions_init, structure, frame, (k, d), gaps, held)
    return Given(weights, means, covariance, known)


def shaped(name: str, given: Any, shape: tuple[int, ...], gaps: bool = False) -> Array:
    """Finite numbers of this shape, or NaN where there may be gaps."""
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}={given!r} holds what is no number; {shape} numbers are needed") from error
    if values.shape != shape:
        raise InputError(f"{name} has shape {values.shape}, but {shape} is needed")
    if not (np.isfinite(values) | (np.isnan(values) & gaps)).all():
        raise InputError(f"{name} holds NaN or infinity; every value must be finite")
    return values


def _covariance(
    precisions: Any, structure: Structure, frame: Frame, shape_of_means: tuple[int, int], gaps: bool, held: bool
) -> tuple[Covariance, Array]:
    """The covariances with these precisions, and of which components they are given."""
    k, d = shape_of_means
    shape = {Order.full: (k, d, d), Order.pooled: (d, d), Order.diagonal: (k, d), Order.trace: (k,)}[structure.order]
    values = shaped("precisions_init", precisions, shape, gaps and not structure.constrained)
    known = np.ones(k, dtype=bool)
    if structure.order is not Order.pooled:
        known = ~np.isnan(values.reshape(k, -1)).any(axis=1)
        identity = np.eye(d) if structure.order is Order.full else np.ones(shape[1:])
        values = np.where(beside(known, values), values, identity)
    matrices = structure.order in (Order.full, Order.pooled)
    if not np.all(np.linalg.eigvalsh(values) > 0 if matrices else values > 0):
        raise InputError("precisions_init must be positive definite")
    covariance = structure.covariance.of_precisions(values).rescaled(frame.scale)
    nearest = structure.nearest(covariance, np.full(k, 1.0 / k), d)
    if held and not np.allclose(nearest.values, covariance.values, rtol=1e-6, atol=0.0):
        raise InputError(
            "precisions_init, which fixed holds, are not of this covariance_type; pass such, or their own type"
        )
    return nearest, known


def held_components(fixed: Any, k: int) -> dict[str, Array]:
    """Of which components weights, means and covariances are held: (k,) each.

    Raises
    ------
    InputError
        Where `fixed` names something else.
    """
    which = {name: np.zeros(k, dtype=bool) for name in NAMES}
    if fixed is None:
        return which
    if isinstance(fixed, Mapping):
        for name, components in fixed.items():
            _named(name, which)[_numbered(components, k)] = True
        return which
    for item in _listed(fixed):
        if isinstance(item, str):
            _named(item, which)[:] = True
        else:
            for mask in which.values():
                mask[_numbered([item], k)] = True
    return which


def _listed(given: Any) -> list[Any]:
    if isinstance(given, str | Integral):
        return [given]
    if not np.iterable(given):
        raise InputError(f"fixed holds {given!r}; pass {', '.join(NAMES)}, numbers of components, or a dict of both")
    return list(given)


def _named(name: Any, which: Mapping[str, Array]) -> Array:
    if name not in which:
        raise InputError(f"fixed holds {name!r}; pass {', '.join(NAMES)}, numbers of components, or a dict of both")
    return which[name]


def _numbered(components: Any, k: int) -> Any:
    if components is True:
        return slice(None)
    numbers = _listed(components)
    for j in numbers:
        if isinstance(j, bool) or not isinstance(j, Integral) or not 0 <= int(j) < k:
            raise InputError(f"fixed holds component {j!r}, but components are numbered from 0 to {k - 1}")
    return numbers


def check_fixed(face: Any, structure: Structure, k: int) -> None:
    """Whether what is held goes with the other options."""
    which = held_components(face.fixed, k)
    if not any(mask.any() for mask in which.values()):
        return
    own = which["covariances"]
    if own.any() and face.covariance_type == "fixed":
        raise InputError('covariance_type="fixed" holds all covariances already; leave them out of `fixed`')
    if own.any() and not own.all() and (structure.constrained or structure.order is Order.pooled):
        raise InputError(
            f"covariance_type={face.covariance_type!r} ties covariances together, so that one alone cannot be held; "
            'hold all of them, or pass "full", "diag" or "spherical"'
        )
    if which["weights"].any() and face.equal_weights:
        raise InputError("equal_weights=True leaves no weight to hold; pass one of them")
    if which["weights"].any() and face.noise:
        raise InputError("weights cannot be held beside noise, which takes its share of the rows; hold the others only")
    if face.prior is not None:
        raise InputError("a prior is of parameters that are estimated, not of those that are held; pass one of the two")
    if face.on_collapse == "drop":
        raise InputError('on_collapse="drop" would change the numbers of components that are held; pass "restart"')
