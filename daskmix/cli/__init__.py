"""The command line: `daskmix fit | predict | select | run | plan | inspect | demo`, paths or URLs in and out.

What computes is imported by the command that needs it, so that help comes at once.
"""

from __future__ import annotations

import click

from daskmix import __version__
from daskmix.cli.demo import demo
from daskmix.cli.failures import Commands
from daskmix.cli.fit import fit
from daskmix.cli.inspect import inspect
from daskmix.cli.options import debug
from daskmix.cli.plan import plan
from daskmix.cli.predict import predict
from daskmix.cli.run import run
from daskmix.cli.select import select


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="daskmix")
@debug
def main() -> None:
    """K-means and Gaussian mixtures for data that do not fit in memory.

    Rows come from a Zarr store, chunk by chunk; models and labels go to Zarr stores.

    \b
    Examples:
      daskmix fit ocean.zarr --variable temp --variable salt --model gmm -k 5 --out model.zarr
      daskmix plan ocean.zarr --variable temp --variable salt --model gmm -k 5
      daskmix select ocean.zarr --variable temp --variable salt --model gmm -k 2-12 --out best.zarr
      daskmix predict model.zarr ocean.zarr --out labels.zarr --uncertainty
      daskmix run job.toml
      daskmix inspect model.zarr
      daskmix demo --out demo-output

    Exit codes: 0 done, 2 bad usage or bad input, 75 what may go away by itself (a cluster or a store that cannot be
    reached, workers lost too often, a pass that stands still), 1 anything else.
    """


for command in (fit, predict, select, run, plan, inspect, demo):
    main.add_command(command)
