"""scikit-learn's faces; the only place that knows option strings."""

from daskmix.estimators.bayesian_mixture import BayesianGaussianMixture
from daskmix.estimators.bisecting_kmeans import BisectingKMeans
from daskmix.estimators.gaussian_mixture import GaussianMixture
from daskmix.estimators.kmeans import KMeans

__all__ = ["BayesianGaussianMixture", "BisectingKMeans", "GaussianMixture", "KMeans"]
