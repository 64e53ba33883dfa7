"""K-means and Gaussian mixtures for data that do not fit in memory."""

from typing import Any

__version__ = "0.1.0"

__all__ = [
    "BayesianGaussianMixture",
    "BisectingKMeans",
    "GaussianMixture",
    "KMeans",
    "Run",
    "__version__",
    "cluster_config",
    "load",
    "plan",
    "select",
    "write_rows",
]

_HOMES = {
    "BayesianGaussianMixture": "daskmix.estimators",
    "BisectingKMeans": "daskmix.estimators",
    "GaussianMixture": "daskmix.estimators",
    "KMeans": "daskmix.estimators",
    "Run": "daskmix.hooks",
    "cluster_config": "daskmix.settings",
    "load": "daskmix.store",
    "plan": "daskmix.planning",
    "select": "daskmix.selection",
    "write_rows": "daskmix.store",
}


def __getattr__(name: str) -> Any:
    # Names are fetched when they are asked for: importing daskmix imports nothing heavy and compiles nothing.
    if name not in _HOMES:
        raise AttributeError(f"module 'daskmix' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
