"""Errors as one line on stderr, and exit codes."""

from __future__ import annotations

import traceback
import warnings
from typing import Any

import click

from daskmix.cli.text import harmless
from daskmix.errors import (
    BadChunkError,
    CheckpointError,
    DaskmixError,
    IncompleteStoreError,
    InputError,
    InputTypeError,
    SchemaError,
    StoreExistsError,
    StoreNotFoundError,
    VariableNotFoundError,
    bare_url,
)

BAD_INPUT = (
    InputError,
    InputTypeError,
    StoreNotFoundError,
    StoreExistsError,
    VariableNotFoundError,
    BadChunkError,
    SchemaError,
    IncompleteStoreError,
    CheckpointError,
)
DEBUG = "daskmix.debug"
OPTIONS = {'missing="drop"': "--missing drop", "run=Run(scratch=...)": "--scratch"}  # what Python's words are here


class BadInput(click.ClickException):
    """What was given cannot be used."""

    exit_code = 2


def _told(error: Exception) -> click.ClickException:
    """An error as one line on stderr, with its exit code."""
    said = _said(error)
    if isinstance(error, BAD_INPUT):
        return BadInput(said)
    expected = isinstance(error, DaskmixError)
    return click.ClickException(said if expected else f"{type(error).__name__}: {said} (--debug shows where)")


def _said(message: object) -> str:
    """On one line, in the words of the command line."""
    said = harmless(bare_url(" ".join(str(message).split())))
    for word, option in OPTIONS.items():
        said = said.replace(word, option)
    return said


class Commands(click.Group):
    """Commands whose errors come out as one line: exit code 2 for bad usage or input, 1 for anything else."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warn
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click knows what to do about these
        except Exception as error:
            if ctx.meta.get(DEBUG):
                traceback.print_exc()
            raise _told(error) from error


def _warn(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    click.echo(f"Warning: {_said(message)}", err=True)
