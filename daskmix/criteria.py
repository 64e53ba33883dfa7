"""What tells a better model from one that only has more parameters."""

from __future__ import annotations

import numpy as np

from daskmix.block import Array


def bic(score: float, mass: float, parameters: int, certainty: float = 0.0) -> float:
    """Bayesian information criterion (Schwarz 1978); smaller is better.

    `score` is the sum of the log-likelihood, `mass` that of the weights, `certainty` that of the log of each row's
    largest responsibility.
    """
    return float(-2 * score + parameters * np.log(mass))


def aic(score: float, mass: float, parameters: int, certainty: float = 0.0) -> float:
    """Akaike information criterion (Akaike 1974); smaller is better."""
    return float(-2 * score + 2 * parameters)


def icl(score: float, mass: float, parameters: int, certainty: float = 0.0) -> float:
    """Integrated completed likelihood (Biernacki, Celeux & Govaert 2000): BIC less twice the certainty."""
    return bic(score, mass, parameters) - 2 * certainty


def calinski_harabasz(cost: float, scatter: float, mass: float, k: int) -> float:
    """Scatter between clusters against that within, each by its degrees of freedom (Calinski & Harabasz 1974).

    Larger is better; NaN where there is no more mass than clusters, infinite where nothing is scattered within them.
    `scatter` is the sum of squared distances to the mean of all rows, `cost` to the nearest centre.
    """
    if mass <= k:
        return float("nan")
    with np.errstate(over="ignore"):
        return float((scatter - cost) / (k - 1) / max(cost / (mass - k), np.finfo(np.float64).tiny))


def davies_bouldin(centres: Array, spread: Array) -> float:
    """How wide the most alike clusters are against how far apart (Davies & Bouldin 1979); smaller is better.

    `spread` is the mean distance of each cluster's rows to its centre: (k,). NaN for a single cluster.
    """
    if len(centres) < 2:
        return float("nan")
    apart = np.sqrt(((centres[:, None] - centres[None]) ** 2).sum(axis=2))
    both = spread[:, None] + spread[None]
    np.fill_diagonal(both, 0.0)
    np.fill_diagonal(apart, 1.0)
    with np.errstate(divide="ignore"):
        return float((both / apart).max(axis=1).mean())
