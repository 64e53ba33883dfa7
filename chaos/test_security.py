"""Thousands of spoiled models and checkpoints, and every bit of a small model: nothing is taken for what it is not."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

sys.path.append(str(Path(__file__).parent.parent / "tests"))  # the tests make such files too

from hostile import Victim, X, begun_checkpoint, forged, small_model, spoiled, survivors, whole_models, write

from daskmix import KMeans

EXAMPLES = int(os.environ.get("CHAOS_EXAMPLES", "3000"))


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    KMeans(2, random_state=0).fit(X).save(tmp_path / "victim.zarr")
    process = Victim(tmp_path / "victim.zarr")
    yield process
    process.end()


@pytest.mark.limit(900)
def test_thousands_of_spoiled_models_are_read_or_refused(victim: Victim, tmp_path: Path) -> None:
    models = whole_models(tmp_path / "whole")
    for seed in range(EXAMPLES):
        chance = Random(seed)
        path = write(spoiled(models[chance.choice(sorted(models))], chance), tmp_path / "spoiled" / "m.zarr")
        said = victim.opens("model", path)
        assert not said.startswith("UNTYPED"), (seed, said)
        shutil.rmtree(path.parent, ignore_errors=True)


@pytest.mark.limit(900)
def test_thousands_of_spoiled_checkpoints_are_gone_on_with_or_refused(victim: Victim, tmp_path: Path) -> None:
    begun = begun_checkpoint(tmp_path / "begun")
    for seed in range(EXAMPLES):
        spoil = (spoiled, forged)[seed % 2]
        path = write(spoil(begun, Random(seed)), tmp_path / "spoiled" / "c")
        said = victim.opens("going_on", path)
        assert spoil is forged or not said.startswith("UNTYPED"), (seed, said)
        shutil.rmtree(path.parent, ignore_errors=True)


@pytest.mark.limit(900)
def test_every_bit_of_a_model_that_is_flipped_is_seen_or_changes_nothing() -> None:
    tried, seen, wrong = survivors(*small_model(), lambda at: range(8))
    assert not wrong
    assert 0.3 * tried < seen < tried
