"""What follows from a mixture without another look at the rows: marginals, conditionals, draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv, ndtri

from daskmix.block import Array
from daskmix.family import Family, Freedom
from daskmix.given import Noise
from daskmix.kernels import LOG_2PI, Order
from daskmix.mixture import Mixture
from daskmix.sampling import uniform
from daskmix.structures import Diagonal, Full, Spherical, Structure, Tied

# Of a structure that says how components are alike, a part says less.
PLAIN: dict[Order, Structure] = {
    Order.full: Full(),
    Order.pooled: Tied(),
    Order.diagonal: Diagonal(),
    Order.trace: Spherical(),
}
BELOW_ONE = 1.0 - 2.0**-53


def _plain(
    weights: Array, means: Array, values: Array, order: Order, noise: Noise | None, nu: Array | None = None
) -> Mixture:
    structure, freedom = PLAIN[order], None if nu is None else Freedom(nu)
    family = Family(structure, noise=noise, freedom=freedom)
    return Mixture(weights, means, structure.covariance.of(values), family, nu=nu)


def _noise_of(model: Mixture, features: Array) -> Noise | None:
    noise = model.family.noise
    return None if noise is None else noise.of_features(features)


def _part(values: Array, features: Array, order: Order) -> Array:
    """Covariances of some features."""
    if order is Order.trace:
        return values
    if order is Order.diagonal:
        return values[:, features]
    return values[..., features, :][..., features]


def marginal(model: Mixture, features: Array) -> Mixture:
    """The mixture of some features, in this order; of Student's t with the same degrees of freedom."""
    order = model.structure.order
    values = _part(model.covariance.values, features, order)
    return _plain(model.weights, model.means[:, features], values, order, _noise_of(model, features), model.nu)


def conditional(model: Mixture, given: Array, at: Array) -> Mixture:
    """The mixture of the other features, where these have the values `at` (o,).

    Eaton (1983), Multivariate Statistics, proposition 3.13, for each component; weights by Bayes' rule.
    """
    order, (k, d) = model.structure.order, model.shape
    rest = np.setdiff1d(np.arange(d), given)
    dense = np.array(model.covariance.dense(k, d))
    factors = np.linalg.inv(np.linalg.cholesky(dense[:, given][:, :, given]))
    white = np.einsum("koe,ke->ko", factors, at - model.means[:, given])
    log_det = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    joint = np.log(model.own_weights) + log_det - 0.5 * ((white**2).sum(axis=1) + len(given) * LOG_2PI)
    noise = _noise_of(model, given)
    if noise is not None:
        joint = np.append(joint, np.log(model.weights[-1]) + noise.log_density)
    weights = np.exp(joint - joint.max())
    half = np.einsum("kre,koe->kro", dense[:, rest][:, :, given], factors)
    means = model.means[:, rest] + np.einsum("kro,ko->kr", half, white)
    values = _part(model.covariance.values, rest, order)
    if order in (Order.full, Order.pooled):
        explained = half @ half.transpose(0, 2, 1)
        values = values - (explained if order is Order.full else explained[0])
    return _plain(weights / weights.sum(), means, values, order, _noise_of(model, rest))


@dataclass(frozen=True)
class Draws:
    """Rows of a mixture, each from the seed and its index alone, so that they do not depend on how they are cut."""

    model: Mixture
    seed: int

    def components(self, index: Array) -> Array:
        """(n,), -1 for noise."""
        cumulative = np.cumsum(self.model.weights)
        found = np.searchsorted(cumulative[:-1], uniform(self.seed, index) * cumulative[-1])
        return np.where(found == self.model.shape[0], -1, found)

    def rows(self, index: Array) -> Array:
        """(n, d)"""
        (k, d), means, noise = self.model.shape, self.model.means, self.model.family.noise
        uniforms = [uniform(self.seed + 1 + f, index) for f in range(d)]
        # A draw of one would be infinitely far.
        normal = [ndtri(np.minimum(u, BELOW_ONE)) for u in uniforms]
        component, out = self.components(index), np.empty((len(index), d))
        lower = np.linalg.cholesky(np.array(self.model.covariance.dense(k, d)))
        if self.model.nu is not None:
            # Student's t is normal over the root of a chi squared, over its degrees of freedom.
            half = 0.5 * self.model.nu[component]
            root = np.sqrt(gammaincinv(half, uniform(self.seed + 1 + d, index)) / half)
            normal = [z / root for z in normal]
        # By columns: nothing is gathered twice, nor left to BLAS, whose last digits depend on how many rows there are.
        for e in range(d):
            own = means[:, e].take(component)
            for f in range(e + 1):
                if lower[:, e, f].any():
                    own += lower[:, e, f].take(component) * normal[f]
            if noise is not None:
                low, high = noise.low[e], noise.high[e]
                own = np.where(component < 0, low + uniforms[e] * (high - low), own)
            out[:, e] = own
        return out
