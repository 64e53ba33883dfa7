"""The only loop over passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from daskmix.algorithms.base import Algorithm, Outcome
from daskmix.reduction import Reduction, Sums, Together

if TYPE_CHECKING:
    from daskmix.rows import Rows

A = TypeVar("A")


@dataclass(frozen=True)
class Tally(Sums):
    """What was read to answer a question; counted where the reading is done."""

    chunks: int
    rows: int
    bytes: int  # of the chunks, whether they were read from their source or had been kept
    decoded: int = 0  # bytes read from their source
    refused: int = 0  # chunks that scratch had no room for


@dataclass(frozen=True)
class Going:
    """How far a pass is, as an engine sees it."""

    done: int  # parts that are answered: bundles of chunks
    total: int
    workers: int | None = None  # that the cluster has; None where there is none
    lost: int = 0  # workers that it had in the passes so far and has not any more, those that were let go among them
    repeats: int = 0  # times that passes were submitted again


# Called by the thread that waits for the pass: at its begin, now and then, and at its end. It raises no Exception.
Onlooker = Callable[[Going], None]


def nobody(going: Going) -> None:
    """The onlooker where there is none."""


class Engine(Protocol):
    """Answers questions about rows."""

    def run(self, reduction: Reduction[A], rows: Rows) -> tuple[A, Tally]:
        """The answer of all rows, each chunk visited once; and what was read."""
        ...

    def close(self) -> None:
        """Let go of what was kept between passes."""
        ...


@dataclass(frozen=True)
class Pass:
    """One visit of every row."""

    states: tuple[Any, ...]  # of every algorithm, after the pass
    live: tuple[int, ...]  # which of them asked
    read: Tally
    seconds: float


def passes(
    algorithms: Sequence[Algorithm[Any, Any]], rows: Rows, *, engine: Engine, states: Sequence[Any]
) -> Iterator[Pass]:
    """Ask, read, tell, until every algorithm is done. All that are running share each read."""
    now = list(states)
    while live := [i for i, state in enumerate(now) if state.outcome is Outcome.running]:
        began = time.perf_counter()
        asked = Together(tuple(algorithms[i].ask(now[i]) for i in live))
        answers, read = engine.run(asked, rows)
        for i, answer in zip(live, answers, strict=True):
            now[i] = algorithms[i].tell(now[i], answer)
        yield Pass(tuple(now), tuple(live), read, time.perf_counter() - began)
