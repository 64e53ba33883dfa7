"""Stores with a bit flipped, cut short, zeroed or with objects gone: all of it is caught, and the object named."""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import zarr

from daskmix import GaussianMixture, KMeans, Run, load
from daskmix.errors import CheckpointWarning, DaskmixError

CHUNKS, ROWS = 20, 500
EACH = 12  # places for each kind of damage


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    where = chance.randrange(8 * len(data))
    data[where // 8] ^= 1 << where % 8
    path.write_bytes(data)


def cut_short(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(1, len(data))])


def zero(path: Path, chance: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def empty(path: Path, chance: random.Random) -> None:
    path.write_bytes(b"")


def remove(path: Path, chance: random.Random) -> None:
    path.unlink()


DAMAGE = [flip, cut_short, zero, empty, remove]


@dataclass(frozen=True)
class Whole:
    """A store before anything happened to it, what is done with it, and what comes of that."""

    path: Path
    use: Callable[[Path], bytes]
    right: bytes

    def objects(self) -> list[Path]:
        return sorted(path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file())


def damaged(whole: Whole, damage, among: Callable[[Path], bool], folder: Path) -> Iterator[tuple[Path, Path]]:
    """Copies of a store, each with one object damaged: the store, and which it was."""
    chance = random.Random(f"{damage.__name__} {whole.path.name}")
    objects = [path for path in whole.objects() if among(path)]
    for i in range(EACH):
        at, copy = objects[i % len(objects)] if len(objects) < EACH else chance.choice(objects), folder / f"copy-{i}"
        shutil.copytree(whole.path, copy)
        damage(copy / at, chance)
        if not (copy / at).exists() or (copy / at).read_bytes() != (whole.path / at).read_bytes():
            yield copy, at
        shutil.rmtree(copy)


def outcome(whole: Whole, copy: Path) -> str:
    """What was said; or that the damage made no difference; or that it was not noticed, which is never right."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            ended = "no difference" if whole.use(copy) == whole.right else "NOT NOTICED"
        except DaskmixError as error:
            ended = f"{type(error).__name__}: {error}"
        except Exception as error:
            ended = f"NOT TYPED: {type(error).__name__}: {error}"
    return "; ".join([ended, *(str(w.message) for w in warned if issubclass(w.category, CheckpointWarning))])


def means(path: Path) -> bytes:
    return KMeans(3, max_iter=2, tol=0, random_state=0).fit(str(path)).cluster_centers_.tobytes()


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Whole:
    """Chunks with checksums."""
    path = tmp_path_factory.mktemp("rows") / "x.zarr"
    rng = np.random.default_rng(0)
    x = rng.standard_normal((CHUNKS * ROWS, 3)) + 4 * rng.integers(0, 3, (CHUNKS * ROWS, 1))
    codecs = [zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()]
    zarr.create_array(path, shape=x.shape, chunks=(ROWS, 3), dtype=x.dtype, compressors=codecs)[:] = x
    return Whole(path, means, means(path))


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_chunk_of_the_input_is_caught_and_named(damage, rows, tmp_path):
    for copy, at in damaged(rows, damage, lambda path: path.name != "zarr.json", tmp_path):
        said, number = outcome(rows, copy), at.parts[-2]
        assert said.startswith(("BadChunkError", "MissingChunksError")), f"{at}: {said}"
        assert f"chunk {number}" in said or f"c/{number}/0" in said, f"{at}: {said}"


def everything(model) -> bytes:
    """All that was loaded, as bytes."""
    found = {name: value for name, value in sorted(vars(model).items()) if name not in ("run", "random_state")}
    return repr([(k, v.tobytes() if isinstance(v, np.ndarray) else v) for k, v in found.items()]).encode()


@pytest.fixture(scope="module")
def model(rows, tmp_path_factory) -> Whole:
    path = tmp_path_factory.mktemp("model") / "model.zarr"
    GaussianMixture(3, max_iter=3, random_state=0).fit(str(rows.path)).save(path)
    return Whole(path, lambda path: everything(load(path)), everything(load(path)))


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_model_is_caught_and_named(damage, model, tmp_path):
    for copy, at in damaged(model, damage, lambda path: True, tmp_path):
        said = outcome(model, copy)
        assert not said.startswith("NOT"), f"{at}: {said}"
        assert said == "no difference" or str(copy) in said, f"{at}: {said}"


class Stop(Exception):
    """As if the driver were killed."""


@pytest.fixture(scope="module")
def checkpoint(rows, tmp_path_factory) -> Whole:
    """What a fit leaves that ended after its fourth pass; used by the same fit again."""
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint"

    def fitted(path: Path, callbacks=()) -> bytes:
        run = Run(checkpoint=str(path), callbacks=callbacks)
        model = GaussianMixture(3, max_iter=5, tol=0, accelerate="none", random_state=0, run=run).fit(str(rows.path))
        return model.means_.tobytes() + model.covariances_.tobytes()

    def stop(record):
        if record["pass"] == 4:
            raise Stop

    right = fitted(path.with_name("undisturbed"))
    with pytest.raises(Stop):
        fitted(path, (stop,))
    return Whole(path, fitted, right)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_caught_and_named(damage, checkpoint, tmp_path):
    """The fit goes on from the commit before, to the same bits, or says that there is none."""
    commits = [path for path in checkpoint.objects() if path.parts[0] == "commits"]
    for copy, at in damaged(checkpoint, damage, lambda path: True, tmp_path):
        said = outcome(checkpoint, copy)
        assert not said.startswith("NOT"), f"{at}: {said}"
        # What only the commit before the last one needs, or a last commit that is gone, is not missed.
        spare = at == commits[0] or only_in(checkpoint.path / commits[0], checkpoint.path / commits[-1], at.name)
        if not (said == "no difference" and (spare or (damage is remove and at == commits[-1]))):
            assert str(copy) in said, f"{at}: {said}"
            assert at.as_posix() in said, f"{at}: {said}"


def only_in(commit: Path, other: Path, name: str) -> bool:
    """Whether an object is named by one commit and not by the other."""
    return name in commit.read_text() and name not in other.read_text()
