"""Ten thousand inputs, usable or not, each of which ends with a typed error or a right answer.

All processors take part. DASKMIX_FUZZ_SEED=1000 make chaos tries ten thousand others.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import fuzzing

EXAMPLES, BATCH, SECONDS = 10_000, 250, 1800


def batch(number: int) -> Counter[str]:
    """How the examples of this seed ended."""
    ended: Counter[str] = Counter()

    @seed(number)
    # What fails is told as it was found: to make it smaller takes longer than all else.
    @settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(fuzzing.CASES)
    def some(case):
        ended[fuzzing.check(case)] += 1

    some()
    return ended


@pytest.mark.limit(SECONDS)
def test_ten_thousand_inputs_end_with_a_typed_error_or_a_right_answer(capsys):
    first, ended = int(os.environ.get("DASKMIX_FUZZ_SEED", "0")), Counter[str]()
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), fuzzing.warm) as processes:
        for some in processes.map(batch, range(first, first + EXAMPLES // BATCH)):
            ended += some
            with capsys.disabled():
                print(f"\nfuzz: {ended.total()} examples: {dict(ended.most_common(5))}", end="", flush=True)
    assert ended.total() >= EXAMPLES
    assert ended["fitted"] > ended.total() / 10


@pytest.mark.limit(600)
@settings(max_examples=1000, deadline=None, database=None)
@given(fuzzing.STARTS)
def test_from_the_same_thousand_starts_fits_come_as_far_as_scikit_learn_s(start):
    fuzzing.against_scikit_learn(start)
