"""Tables in Markdown, what is required, and what everything was measured on."""

import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import isnan
from textwrap import fill

from benchmarks.settings import Settings
from daskmix.engines.dask import processor
from daskmix.hooks import fingerprint

PACKAGES = (
    "daskmix", "scikit-learn", "scikit-learn-intelex", "dask-ml", "pyspark", "dask", "distributed", "zarr", "numpy",
    "scipy", "numba",
)  # fmt: skip

INTRODUCTION = """
Written by `{command}`, in one run. Ratios count, not seconds: the contenders take turns, so that whatever else the
machine does slows all of them. Every figure is the median of {repeats} after one that warms up; ratios are those of
medians."""


@dataclass(frozen=True)
class Requirement:
    """What must be reached, and what was."""

    case: str
    required: str
    measured: str
    met: str  # "yes", "no", or "" where it could not be measured


@dataclass(frozen=True)
class Section:
    """One part of a run: a table, what it compares and how, and the requirements that it answers."""

    title: str
    text: str
    table: str
    requirements: tuple[Requirement, ...] = ()

    def __str__(self) -> str:
        return f"## {self.title}\n\n{paragraph(self.text)}\n\n{self.table}"


def at_least(case: str, bound: float, measured: float, unit: str = "x as fast") -> Requirement:
    """A figure that must not be smaller."""
    return _judged(case, f"at least {bound:g}{unit}", f"{measured:.3g}{unit}", measured, measured >= bound)


def at_most(case: str, bound: float, measured: float, unit: str = "x the time") -> Requirement:
    """A figure that must not be larger."""
    return _judged(case, f"at most {bound:g}{unit}", f"{measured:.3g}{unit}", measured, measured <= bound)


def _judged(case: str, required: str, shown: str, measured: float, met: bool) -> Requirement:
    if isnan(measured):
        return Requirement(case, required, "not measured", "")
    return Requirement(case, required, shown, "yes" if met else "no")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is text, all others numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def headline(sections: Sequence[Section]) -> Section:
    """Everything that is required of what was measured."""
    rows = [(r.case, r.required, r.measured, r.met) for section in sections for r in section.requirements]
    text = "Each line follows from one of the other tables."
    return Section("What must be reached", text, table(["case", "required", "measured", "met"], rows))


def introduction(command: str, settings: Settings) -> str:
    """The head of the page."""
    written = INTRODUCTION.format(command=command, repeats=settings.repeats)
    return f"# Performance\n\n{paragraph(written)}\n\n{paragraph(machine(settings.threads))}"


def paragraph(text: str) -> str:
    """Text in lines of even length."""
    return fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def progress(line: str) -> None:
    """Something to read while a long part goes on."""
    print(line, file=sys.stderr, flush=True)


def ms(seconds: float) -> str:
    """Milliseconds."""
    return f"{1000 * seconds:.1f}"


def times(ratio: float) -> str:
    """A ratio, and nothing where there is none."""
    return "" if isnan(ratio) else f"{ratio:.2f}"


def reasons(absent: Mapping[str, str]) -> str:
    """Why some contenders were not timed, in sentences."""
    return "".join(f" {name} {why}." for name, why in absent.items())


def machine(threads: int) -> str:
    """Processor, threads and versions, in a sentence."""
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    blas = fingerprint()["blas"]
    here = f"{processor()}, {os.cpu_count()} cores, {threads} thread" + "s" * (threads != 1)
    return f"Measured on {here}; {blas}; Python {platform.python_version()}, {versions}."


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
