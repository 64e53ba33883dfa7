"""`daskmix run`."""

from __future__ import annotations

import os

import click

from daskmix.cli.failures import WORDS
from daskmix.cli.job import read, reference
from daskmix.cli.job import schema as described
from daskmix.cli.keys import SCHEDULER, as_keys
from daskmix.cli.options import debug, face, how_to_tell, option, overwriting
from daskmix.cli.text import HIDDEN
from daskmix.cli.work import carry_out, foretell


@click.command()
@click.argument("path", metavar="JOB", required=False)
@click.option("--dry-run", is_flag=True, help="Check the job and tell what it will cost; write nothing.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of job files.")
@click.option("--keys", is_flag=True, help="Print all keys of job files, as Markdown.")
@option(SCHEDULER, by_default="what the job says")
@overwriting
@how_to_tell
@debug
@click.pass_context
def run(
    ctx: click.Context,
    path: str | None,
    dry_run: bool,
    schema: bool,
    keys: bool,
    scheduler: str | None,
    overwrite: bool | None,
    progress: str,
    quiet: bool,
) -> None:
    """Do what JOB says, a TOML file: fit or search for a model, write it and its labels.

    What is done already is not done again: with a checkpoint the same job goes on where it was cut off, and once it is
    done it reads nothing. Paths are as seen from the working directory. ${NAME} in paths, URLs and addresses is a
    variable of the environment, which no message shows.

    \b
    Examples:
      daskmix run job.toml
      daskmix run job.toml --dry-run
      daskmix run job.toml --scheduler tcp://10.0.0.1:8786
      daskmix run --schema
    """
    if schema or keys:
        click.echo(described() if schema else reference())
        return
    if path is None:
        raise click.UsageError("Missing argument 'JOB'.")
    ctx.meta[WORDS] = as_keys()
    asked = read(path, os.environ)
    ctx.meta[HIDDEN] = asked.hidden
    task, source, outputs = asked.task(face(progress, quiet)), asked.source(), asked.outputs(bool(overwrite))
    if dry_run:
        foretell(task, source, outputs)
    else:
        carry_out(task, source, outputs, scheduler or asked.scheduler)
