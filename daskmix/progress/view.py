"""What is to be shown of a fit under way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from daskmix.passes import Going

Record = Mapping[str, Any]

RUNNING, DONE, INTERRUPTED, FAILED = "running", "done", "interrupted", "failed"
TRAIL = 400  # passes that are remembered


@dataclass(frozen=True)
class Step:
    """What one pass brought."""

    measure: str
    objective: float | None
    gap: float | None


@dataclass(frozen=True)
class View:
    """A fit at one moment."""

    title: str = "fit"
    outcome: str = RUNNING
    why: str = ""  # it failed
    passes: int = 0  # that are done
    what: str = ""  # the pass under way asks, or the last one did
    going: Going | None = None  # how far the pass under way is; None between two
    began: float = 0.0  # when the fit began, that pass, and now: seconds of one clock
    pass_began: float = 0.0
    now: float = 0.0
    nbytes: int | None = None  # that a pass visits
    live: int | None = None  # models in the last pass
    rate: float | None = None  # bytes per second in the last pass
    trail: tuple[Step, ...] = ()
    workers: int | None = None  # of a cluster
    lost: int = 0  # workers, in all passes
    repeats: int = 0  # of passes
    commit: int | None = None  # the last one of the checkpoint
    place: str = ""  # of the checkpoint

    def passed(self, record: Record, commit: int | None) -> Self:
        """After the pass of this record."""
        step = Step(record["measure"], record["objective"], record.get("gap"))
        return replace(
            self,
            passes=record["pass"],
            what=record["what"],
            going=None,
            nbytes=record["bytes"],
            live=record["live"],
            rate=rate_of(record),
            trail=(*self.trail[1 - TRAIL :], step),
            commit=commit,
        )

    @property
    def seconds(self) -> float:
        """Since the fit began."""
        return self.now - self.began

    @property
    def share(self) -> float:
        """How much of the pass under way is done."""
        return self.going.done / self.going.total if self.going and self.going.total else 0.0

    @property
    def speed(self) -> float | None:
        """Bytes per second: of the pass under way where something is known of it, else of the last one."""
        spent = self.now - self.pass_began
        if self.nbytes is None or spent <= 0 or self.share == 0:
            return self.rate
        return self.nbytes * self.share / spent

    @property
    def left(self) -> float | None:
        """Seconds that the pass under way will still take, if it goes on as it began; None where nobody knows."""
        if not 0 < self.share < 1:
            return None
        return (self.now - self.pass_began) * (1 - self.share) / self.share

    @property
    def last(self) -> Step | None:
        """The last pass that had an objective."""
        return next((step for step in reversed(self.trail) if known(step.objective) is not None), None)

    def course(self) -> tuple[list[float], list[float]]:
        """Objectives, and sizes of estimated gaps, of the passes that measured what the last one did."""
        same = [step for step in self.trail if self.last is not None and step.measure == self.last.measure]
        objectives = [value for step in same if (value := known(step.objective)) is not None]
        gaps = [abs(value) for step in same if (value := known(step.gap)) is not None and value]
        return objectives, gaps


def known(value: Any) -> float | None:
    """A number, None where it is none."""
    return None if value is None or not math.isfinite(value) else float(value)


def rate_of(record: Record) -> float:
    """Bytes per second of a pass."""
    return float(record["bytes"] / max(record["seconds"], 1e-9))


def speed_in_words(rate: float | None) -> str:
    return "" if rate is None else f"{rate / 1e6:.0f} MB/s"


def time_in_words(seconds: float | None) -> str:
    """0:12 or 1:02:03."""
    if seconds is None:
        return ""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def line(record: Record) -> str:
    """One pass in one line."""
    models = f", {record['live']} models" if record["live"] > 1 else ""
    objective = "" if record["objective"] is None else f"  {record['measure']} {record['objective']:.8g}"
    return (
        f"pass {record['pass']:3d}  {record['what']:<8}{objective}  {record['rows']} rows in {record['seconds']:.2f} s "
        f"({speed_in_words(rate_of(record))}{models})"
    )


def facts(view: View) -> dict[str, str]:
    """What there is to say of a fit, in a few words each; the pass under way first."""
    going, last = view.going, view.last
    if view.outcome != RUNNING:
        said = {}
    elif going is None:
        said = {"passes": str(view.passes), "now": view.what}
    else:
        said = {"pass": f"{view.passes + 1}, {view.what}", "parts": f"{going.done} of {going.total}"}
    said["speed"] = speed_in_words(view.speed)
    said["pass done in"] = time_in_words(view.left)
    if last is not None:
        said[last.measure or "objective"] = f"{last.objective:.8g}"
        said["estimated gap"] = "" if known(last.gap) is None else f"{last.gap:.3g}"
    said["models"] = str(view.live) if view.live and view.live > 1 else ""
    said["workers"] = "" if view.workers is None else str(view.workers)
    said["workers lost"] = str(view.lost or "")
    said["passes repeated"] = str(view.repeats or "")
    if view.commit is not None:
        said["checkpoint"] = f"commit {view.commit} of {view.place}"
    said["time"] = time_in_words(view.seconds)
    return {name: value for name, value in said.items() if value}
