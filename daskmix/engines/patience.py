"""How much trouble a pass may have: how often it is submitted again, and how long it may stand still."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Any, Literal, TypeVar

from daskmix.errors import StalledError, StalledWarning
from daskmix.rows import Part

T = TypeVar("T")

OFTEN = 5.0  # seconds at most between two looks at a pass that is waited for
LOOKS = 10  # in the time after which a pass counts as stalled
NAMED = 3  # tasks or workers that one sentence names


@dataclass(frozen=True)
class Patience:
    """What `Run` says about trouble."""

    retries: int = 3  # times that each pass may be submitted again
    stall: float | None = 600.0  # seconds in which some part of a pass must be finished; None for no limit
    on_stall: Literal["wait", "raise"] = "wait"

    @property
    def interval(self) -> float | None:
        """Seconds between two looks; None where nobody looks."""
        return None if self.stall is None else min(self.stall / LOOKS, OFTEN)


USUAL = Patience()


class Watch:
    """How long nothing has moved in one pass, and who is told."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._seen: Any = None
        self._since = self._told = time.monotonic()

    def look(self, progress: Any, said: Callable[[], str], hanging: bool = False) -> None:
        """Compare the progress with that of the last look; `said` tells what is seen, where none was made for too long.

        Raises
        ------
        StalledError
            Where that is what was asked for.
        """
        now = time.monotonic()
        if progress != self._seen:
            self._seen = progress
            self._since = self._told = now
        elif self.patience.stall is not None and now - self._told >= self.patience.stall:
            self._told = now
            self._tell(f"no part of the pass was finished for {now - self._since:.3g} s: {said()}", hanging)

    def _tell(self, message: str, hanging: bool) -> None:
        if self.patience.on_stall == "raise":
            error = StalledError(f"{message}. Run(stall=...) says how long to wait; run it again when that is mended")
            error.hanging = hanging
            raise error
        warnings.warn(f'{message}. Waiting goes on; Run(on_stall="raise") would end it', StalledWarning, stacklevel=2)


def within(seconds: float, function: Callable[[], T]) -> T:
    """What a function returns that may hang: such as a question to a scheduler that is stopped.

    Raises
    ------
    TimeoutError
        It took longer; its thread is left behind.
    """
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=work, name="daskmix-ask", daemon=True).start()
    return answer.result(seconds)


def chunks_of(parts: tuple[Part, ...]) -> str:
    """The chunks of a bundle, as messages name them."""
    first, last = parts[0], parts[-1]
    end = last.number + last.chunks - 1
    numbers = f"chunk {first.number}" if end == first.number else f"chunks {first.number} to {end}"
    return f"{numbers}{first.source}"
