"""Whatever is passed, a fit ends with a typed error or a right answer; ten thousand more examples are in chaos/."""

import fuzzing
import numpy as np
import pytest
from fuzzing import CASES, STARTS, Case, Source, Table, against_scikit_learn, check
from hypothesis import HealthCheck, given, settings

from daskmix import KMeans


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    """Kernels are compiled before the clock runs."""
    fuzzing.warm()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(CASES)
def test_whatever_is_passed_ends_with_a_typed_error_or_a_right_answer(case):
    check(case)


@settings(max_examples=100, deadline=None)
@given(STARTS)
def test_from_the_same_start_a_fit_comes_as_far_as_scikit_learn_s(start):
    against_scikit_learn(start)


def test_an_answer_that_is_wrong_is_found(monkeypatch):
    case = Case("KMeans", 3, (), Table(40, 2), Source())
    assert check(case) == "fitted"
    fit = KMeans.fit

    def a_little_wrong(self, *args, **options):
        fit(self, *args, **options)
        self.inertia_ *= 1 + 1e-6
        return self

    monkeypatch.setattr(KMeans, "fit", a_little_wrong)
    with pytest.raises(AssertionError):
        check(case)


def test_an_error_without_a_type_is_found(monkeypatch):
    def broken(self, *args, **options):
        return np.ones(3) @ np.ones(4)

    monkeypatch.setattr(KMeans, "fit", broken)
    with pytest.raises(ValueError, match="matmul"):
        check(Case("KMeans", 3, (), Table(40, 2), Source()))


def test_a_fit_that_does_not_end_is_named(monkeypatch):
    def forever(self, *args, **options):
        while True:
            pass

    monkeypatch.setattr(KMeans, "fit", forever)
    monkeypatch.setattr(fuzzing, "SECONDS", 0.2)
    with pytest.raises(AssertionError, match=r"no end after 0.2 s of Case\(model='KMeans'"):
        check(Case("KMeans", 3, (), Table(40, 2), Source()))
