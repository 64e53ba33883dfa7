"""Where zero is and what the unit is decide nothing, whatever a mixture is asked for."""

import numpy as np
import pytest

from daskmix import BayesianGaussianMixture, GaussianMixture

RNG = np.random.default_rng(0)
MEANS = np.array([[0.0, 0.0], [7.0, 1.0], [1.0, 8.0]])
# Whole multiples of 1 / 512, so that adding 1e4 is exact in single precision.
BLOBS = [RNG.normal(mean, 1, (300, 2)) for mean in MEANS]
X = np.round(np.concatenate([*BLOBS, RNG.uniform(-20, 30, (60, 2))]) * 512) / 512
Y = np.where(RNG.random(960) < 0.2, np.repeat([0, 1, 2, -1], [300, 300, 300, 60]), -1)
GAPS = np.where(RNG.random(X.shape) < 0.1, np.nan, X)
KINDS = {
    "noise": {"noise": True},
    "noise beside a shared covariance": {"noise": True, "covariance_type": "tied"},
    "held means": {"fixed": {"means": [0]}},
    "known rows": {"semi_supervised": True},
    "Student's t": {"nu": 4.0},
    "Student's t, estimated": {"nu": "estimate", "covariance_type": "EVE"},
    "a prior": {"prior": "default"},
    "gaps": {"missing": "em"},
    "classification": {"algorithm": "cem", "covariance_type": "VEE"},
}


def fitted(kind, shift, unit, dtype):
    options = {"accelerate": "none", "tol": 1e-9, "max_iter": 500, "reg_covar": 0, "means_init": MEANS * unit + shift}
    x = ((GAPS if kind == "gaps" else X) * unit + shift).astype(dtype)
    model = GaussianMixture(3, **KINDS[kind], **options).fit(x, Y)
    return model.predict(x), model.covariances_ / unit**2


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_offset_in_single_precision_changes_no_label(kind):
    (labels, covariances), (moved, same) = (fitted(kind, shift, 1.0, np.float32) for shift in (0.0, 1e4))
    assert (labels == moved).all()
    np.testing.assert_allclose(same, covariances, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shift", "unit"), [(1e7, 1.0), (0.0, 1e-6), (0.0, 1e6)])
def test_in_double_precision_neither_offset_nor_unit_changes_anything(kind, shift, unit):
    (labels, covariances), (moved, same) = (fitted(kind, *where, np.float64) for where in ((0.0, 1.0), (shift, unit)))
    assert (labels == moved).all()
    np.testing.assert_allclose(same, covariances, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_a_bayesian_mixture_with_gaps_finds_the_same_clusters(shift):
    x = (GAPS[:900] + shift).astype(np.float32)
    label = BayesianGaussianMixture(3, missing="em", random_state=0).fit(x).predict(x)
    there = ~np.isnan(GAPS[:900]).any(axis=1)
    for start in (0, 300, 600):
        own = label[start : start + 300][there[start : start + 300]]
        assert np.bincount(own).max() > 0.97 * len(own)
