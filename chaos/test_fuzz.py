"""Ten thousand inputs, usable or not, each of which ends with a typed error or a right answer.

It stops after ten minutes, too, and says with which seed the next run goes on: DASKMIX_FUZZ_SEED=... make chaos
"""

import os
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import fuzzing

EXAMPLES, SECONDS, BATCH = 10_000, 600, 250


@pytest.mark.limit(2 * SECONDS)
def test_ten_thousand_inputs_end_with_a_typed_error_or_a_right_answer(capsys):
    fuzzing.warm()
    first, began = int(os.environ.get("DASKMIX_FUZZ_SEED", "0")), time.monotonic()
    ended: Counter[str] = Counter()
    for number in range(first, first + EXAMPLES // BATCH):

        @seed(number)
        @settings(max_examples=BATCH, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(fuzzing.CASES)
        def some(case):
            ended[fuzzing.check(case)] += 1

        with capsys.disabled():
            said = ", ".join(f"{count} {word}" for word, count in ended.most_common(4))
            print(f"\nfuzz: DASKMIX_FUZZ_SEED={number} after {ended.total()} examples ({said})", flush=True)
        some()
        if time.monotonic() - began > SECONDS:
            break
    with capsys.disabled():
        print(f"\nfuzz: {ended.total()} examples in {time.monotonic() - began:.0f} s: {dict(ended)}", flush=True)
    assert ended["fitted"] > ended.total() / 10


@pytest.mark.limit(SECONDS)
@settings(max_examples=1000, deadline=None, database=None)
@given(fuzzing.STARTS)
def test_from_the_same_thousand_starts_fits_come_as_far_as_scikit_learn_s(start):
    fuzzing.against_scikit_learn(start)
