"""A loop over bundles: the specification of every engine, and the body of every task."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache, partial
from typing import Any, TypeVar

import dask
import scipy.linalg  # noqa: F401  its BLAS must be loaded before threadpoolctl looks for it
from threadpoolctl import ThreadpoolController

from daskmix.block import Block, Missing
from daskmix.device import suited
from daskmix.engines.keep import NOTHING, Held, Keep
from daskmix.kernels import Kernels, compiled
from daskmix.passes import Going, Onlooker, Tally, nobody
from daskmix.reduction import Reduction, Remembers, merge_in_order, merge_tree
from daskmix.rows import Part, Rows

A = TypeVar("A")

TILE_BYTES = 64 << 20  # working memory of one tile, where a kernel needs it for all rows at once
TILE_STEP = 1024

_users = 0
_lock = threading.Lock()
_limit: Any = None


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS on one thread while at least one task asks for it; the limit is the process's, so users are counted."""
    global _users, _limit
    with _lock:
        _users += 1
        if _users == 1:
            _limit = _controller().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limit.restore_original_limits()


def answer_bundle(
    reduction: Reduction[A], held: Held, missing: Missing, ops: Kernels, given: Sequence[Any] = ()
) -> tuple[A, Tally]:
    """Read each chunk, clean it, map its tiles and merge: one small answer."""
    rows = max(TILE_STEP, TILE_BYTES // reduction.row_bytes(ops) // TILE_STEP * TILE_STEP)
    answer: A | None = None
    tally = Tally(0, 0, 0)
    # Closed here, also after an error: a reader that the garbage collector has to end may wait for itself.
    with one_blas_thread(), closing(held.blocks(missing, given)) as blocks:
        for number, (block, read) in enumerate(blocks):
            for tile in block.tiles(rows):
                found = _answer_tile(reduction, tile, suited(ops, tile.x), held, (number, tile.first))
                answer = found if answer is None else reduction.merge(answer, found)
            tally += read
    return reduction.zero() if answer is None else answer, tally


def _answer_tile(reduction: Reduction[A], tile: Block, ops: Kernels, held: Held, place: tuple[int, int]) -> A:
    if not isinstance(reduction, Remembers):
        return reduction.map(tile, ops)
    answer, memos = reduction.map_with(tile, ops, held.recall(place))
    held.remember(place, memos)
    return answer


def merge_answers(reduction: Reduction[A], answers: Sequence[tuple[A, Tally]]) -> tuple[A, Tally]:
    """One task of the merge tree."""
    return merge_in_order(lambda a, b: (reduction.merge(a[0], b[0]), a[1] + b[1]), answers)


class Shelves:
    """The bundles of all rows that an engine has seen, and what it keeps of them."""

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self._seen: list[tuple[tuple[Part, ...], list[Held]]] = []

    def of(self, rows: Rows) -> list[Held]:
        """The bundles of these rows: made once, so that no pass does again what the last one did."""
        for parts, held in self._seen:
            if parts is rows.parts:
                return held
        keep = self.keep if rows.keep else NOTHING
        made = [Held(bundle, keep, ahead=not rows.in_memory, memory=self.keep) for bundle in rows.bundles]
        self._seen.append((rows.parts, made))
        return made

    def clear(self) -> None:
        """Let go of all that is kept, whoever still holds the bundles."""
        for _, made in self._seen:
            for held in made:
                held.drop()
        self._seen = []


class Local:
    """One bundle after the other, in this thread."""

    def __init__(self, ops: Kernels = compiled, keep: Keep = NOTHING, onlooker: Onlooker = nobody) -> None:
        self.ops = ops
        self.shelves = Shelves(keep)
        self.onlooker = onlooker

    def run(self, reduction: Reduction[A], rows: Rows) -> tuple[A, Tally]:
        answers = []
        bundles = self.shelves.of(rows)
        self.onlooker(Going(0, len(bundles)))
        for held in bundles:
            needs = [name for part in held.bundle for name in part.needs]
            given = dask.get(dict(rows.graph), needs) if needs else ()
            answers.append(answer_bundle(reduction, held, rows.missing, self.ops, given))
            self.onlooker(Going(len(answers), len(bundles)))
        if not answers:
            return reduction.zero(), Tally(0, 0, 0)
        return merge_tree(partial(merge_answers, reduction), answers)

    def close(self) -> None:
        self.shelves.clear()
