"""Where a fit is shown: a notebook, a terminal, lines of JSON, a log, the event log of a Dask cluster."""

from __future__ import annotations

import json
import math
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from queue import SimpleQueue
from threading import Thread
from typing import Any

from daskmix.progress.card import as_html, as_text, headline
from daskmix.progress.view import Record, View, facts, line

TOPIC = "daskmix"  # of the event log
SOON = 1.0  # seconds that the end of a fit waits for a scheduler to take events


class Face:
    """Where a fit is shown. What one raises is no matter to the fit."""

    def show(self, view: View) -> None:
        """Something moved; called now and then."""

    def passed(self, view: View, record: Record) -> None:
        """A pass is done; called once for each."""

    def ended(self, view: View) -> None:
        """The fit is; called once."""

    def close(self) -> None:
        """Leave things as they were, after one of these raised."""


@dataclass(frozen=True)
class Card:
    """What a notebook keeps of a fit: it shows, and stores, whatever the last one is."""

    view: View

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": as_html(self.view), "text/plain": as_text(self.view)}


class Notebook(Face):
    """A card in a notebook, once the fit has taken so many seconds."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self._handle: Any = None

    def show(self, view: View) -> None:
        if self._handle is not None:
            self._handle.update(Card(view))
        elif view.seconds >= self.delay:
            from IPython.display import display  # only in a notebook, which has it

            self._handle = display(Card(view), display_id=True)

    def ended(self, view: View) -> None:
        self.show(view)


class Terminal(Face):
    """A line per pass on a terminal, and below it one that moves."""

    _live: Any = None

    @cached_property
    def console(self) -> Any:
        from rich.console import Console  # only where something is shown

        return Console(stderr=True, highlight=True, soft_wrap=True, force_jupyter=False)

    def show(self, view: View) -> None:
        from rich.live import Live

        if not self.console.is_terminal or self.console.is_dumb_terminal:
            return
        if self._live is None:
            # What a script prints to stdout stays there.
            self._live = Live(console=self.console, auto_refresh=False, transient=False, redirect_stdout=False)
            self._live.start()
        self._live.update(_row(view), refresh=True)

    def passed(self, view: View, record: Record) -> None:
        self.console.print(line(record))

    def ended(self, view: View) -> None:
        if self._live is not None:
            self._live.update(_row(view), refresh=True)
            self.close()

    def close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()


def _row(view: View) -> Any:
    """A fit in one line that fits into the terminal."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 1))
    said = Text("  ".join(f"{name} {value}" for name, value in facts(view).items()), overflow="ellipsis", no_wrap=True)
    if view.going is None:
        row.add_row(Text(headline(view)), said)
    else:
        row.add_row(ProgressBar(view.going.total or 1, view.going.done, width=20), said)
    return row


class Log(Face):
    """A plain line per pass on stderr."""

    def passed(self, view: View, record: Record) -> None:
        print(line(record), file=sys.stderr, flush=True)


class Json(Face):
    """A line of JSON per pass on stderr, and one at the end."""

    def passed(self, view: View, record: Record) -> None:
        _write(event(view, record))

    def ended(self, view: View) -> None:
        _write(
            {
                "event": "end",
                "time": _now(),
                "fit": view.title,
                "outcome": view.outcome,
                "why": view.why,
                "passes": view.passes,
                "seconds": view.seconds,
            }
        )


def _write(told: Record) -> None:
    # In one piece, so that lines of several processes are not mixed.
    sys.stderr.write(json.dumps(told, allow_nan=False) + "\n")
    sys.stderr.flush()


class EventLog(Face):
    """The event log of the Dask cluster that the passes run on, told by a thread: no pass waits for it."""

    def __init__(self) -> None:
        self._told: SimpleQueue[tuple[Any, dict[str, Any]] | None] = SimpleQueue()
        self._teller: Thread | None = None

    def passed(self, view: View, record: Record) -> None:
        if view.workers is None:
            return
        from distributed import default_client

        self._told.put((default_client(), event(view, record)))
        if self._teller is None:
            self._teller = Thread(target=self._tell, name="daskmix-events", daemon=True)
            self._teller.start()

    def ended(self, view: View) -> None:
        if self._teller is not None:
            self._told.put(None)
            self._teller.join(SOON)

    def _tell(self) -> None:
        while (told := self._told.get()) is not None:
            client, its = told
            with suppress(Exception):  # a scheduler that is away: the pass says so, and goes on
                client.log_event(TOPIC, its)

    def close(self) -> None:
        self._told.put(None)


def event(view: View, record: Record) -> dict[str, Any]:
    """A pass as plain values: its record, and what only onlookers know."""
    more = {"workers": view.workers, "workers_lost": view.lost, "repeats": view.repeats, "commit": view.commit}
    return {"event": "pass", "time": _now(), "fit": view.title, **plain(record), **more}


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers that are none are null."""
    if isinstance(value, dict):
        return {str(name): plain(its) for name, its in value.items()}
    if isinstance(value, list | tuple):
        return [plain(its) for its in value]
    if isinstance(value, str | int | None):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
