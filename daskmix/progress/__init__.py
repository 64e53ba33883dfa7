"""How far a fit is, and who is told: one `Progress`, several faces. Never changes the result."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from daskmix.errors import ProgressWarning, bare_url
from daskmix.passes import Going
from daskmix.progress.faces import EventLog, Face, Json, Log, Notebook, Terminal
from daskmix.progress.view import DONE, FAILED, INTERRUPTED, Record, View

OFTEN = 0.25  # seconds at least between two looks
SHARE = 0.01  # of the time at most that they take
DELAY = 1.0  # seconds before a notebook shows a fit that nobody asked it to show
LONG = 300  # characters of an error


class Progress:
    """How far one fit is, and who is told."""

    def __init__(self, faces: Sequence[Face] = (), title: str = "fit", clock: Callable[[], float] = time.monotonic):
        self.faces = list(faces)
        self.clock = clock
        now = clock()
        self.view = View(title, began=now, pass_began=now, now=now)
        self._shown = now - OFTEN  # when faces showed something last
        self._took: float | None = None  # seconds that this took

    def stage(self, what: str, passes: int) -> None:
        """What is done next, and how many passes there were before."""
        self.view = replace(self.view, what=what, passes=passes, going=None, now=self.clock())
        self._show()

    def going(self, going: Going) -> None:
        """So far is the pass; what an engine calls."""
        now, before = self.clock(), self.view.going
        began = self.view.pass_began
        if before is None or going.repeats != self.view.repeats:
            began = now
        self.view = replace(
            self.view,
            going=going,
            now=now,
            pass_began=began,
            workers=going.workers,
            lost=going.lost,
            repeats=going.repeats,
        )
        if now - self._shown >= OFTEN:
            self._show()

    def passed(self, record: Record, commit: int | None = None, place: str = "") -> None:
        """A pass is done."""
        self.view = replace(self.view.passed(record, commit), now=self.clock(), place=bare_url(place))
        self._tell(lambda face: face.passed(self.view, record))
        self._show()

    def ended(self, failure: BaseException | None) -> None:
        """The fit is, by what it raised if it did."""
        outcome, why = DONE, ""
        if isinstance(failure, KeyboardInterrupt | SystemExit):
            outcome = INTERRUPTED
        elif failure is not None:
            said = " ".join(bare_url(str(failure)).split())
            outcome, why = FAILED, f"{type(failure).__name__}: {said[:LONG]}"
        self.view = replace(self.view, outcome=outcome, why=why, going=None, now=self.clock())
        self._tell(lambda face: face.ended(self.view))

    def _show(self) -> None:
        """Let faces show what there is, unless that would take too much of the time."""
        began = self.clock()
        if (began - self._shown) * SHARE < (self._took or 0.0):
            return
        self._tell(lambda face: face.show(self.view))
        self._shown = self.clock()
        # The first time a face imports what it needs.
        self._took = 0.0 if self._took is None else self._shown - began

    def _tell(self, tell: Callable[[Face], None]) -> None:
        """Tell every face; one that raises is told nothing any more."""
        for face in list(self.faces):
            try:
                tell(face)
            except Exception as error:
                self.faces.remove(face)
                with suppress(Exception):
                    face.close()
                said = f"{type(error).__name__}: {bare_url(str(error))}"
                # Also where filters make errors of warnings: the fit is worth more than its picture.
                with suppress(ProgressWarning):
                    warnings.warn(
                        f"progress is not shown any more, as {type(face).__name__} failed ({said}); the fit goes on, "
                        "and Run(progress=False) shows nothing",
                        ProgressWarning,
                        stacklevel=4,
                    )


def in_notebook() -> bool:
    """Whether this is a kernel, whose outputs can be updated."""
    shell = sys.modules.get("IPython")
    here: Any = None if shell is None else shell.get_ipython()
    return getattr(here, "kernel", None) is not None


def faces_for(progress: str | bool, verbose: bool, in_memory: bool) -> list[Face]:
    """Where a fit is shown, by what a user chose: "auto", "html", "terminal", "json", "log" or False."""
    faces: list[Face] = [EventLog()]
    notebook = in_notebook()
    if progress == "auto":
        if notebook and not verbose and not in_memory:
            return [*faces, Notebook(DELAY)]
        shown = "html" if notebook else "terminal" if sys.stderr.isatty() else "log"
        progress = shown if verbose else False
    if progress == "html" and not notebook:
        progress = "log"
    made: dict[Any, Callable[[], Face]] = {"html": Notebook, "terminal": Terminal, "json": Json, "log": Log}
    return [*faces, made[progress]()] if progress else faces
