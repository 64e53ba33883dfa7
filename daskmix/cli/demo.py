"""`daskmix demo`."""

from __future__ import annotations

from pathlib import Path

import click

from daskmix.cli.options import debug


@click.command()
@click.option("--out", required=True, metavar="DIR", help="Where stores, models and picture.png go.")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier demo left there.")
@click.option(
    "--rows", type=click.IntRange(min=1000), default=34_000_000, show_default=True, metavar="N",
    help="Rows of 16 float32 features in the store that is larger than memory.",
)  # fmt: skip
@click.option(
    "--memory-cap", type=click.IntRange(min=512), default=640, show_default=True, metavar="MIB",
    help="Memory that the process fitting this store may take; Python, Dask, numba and BLAS alone take some 350.",
)  # fmt: skip
@debug
def demo(out: str, overwrite: bool, rows: int, memory_cap: int) -> None:
    """Segment two photographs and fit a store larger than memory.

    Needs neither a cluster nor a network: the photographs ship with scikit-learn, the large store is generated (2.0 GiB
    on disk while the demo runs). Takes a minute or two.

    \b
    Examples:
      daskmix demo --out demo-output
      daskmix demo --out demo-output --overwrite --rows 100000000 --memory-cap 1024
    """
    from daskmix.demo import run

    run(Path(out), rows, memory_cap << 20, overwrite, click.echo)
