"""Tables in Markdown, and what they were measured on."""

import os
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version

from daskmix.engines.dask import processor

PACKAGES = ("daskmix", "scikit-learn", "dask-ml", "dask", "numpy", "scipy", "numba")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is text, all others numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def machine(threads: int) -> str:
    """Processor, threads and versions."""
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return f"{processor()}, {os.cpu_count()} cores, {threads} threads; {versions}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
