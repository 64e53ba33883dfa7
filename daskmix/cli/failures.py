"""Errors as one line on stderr, and exit codes."""

from __future__ import annotations

import atexit
import os
import sys
import traceback
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import click

from daskmix.cli.keys import as_options
from daskmix.cli.text import told
from daskmix.errors import (
    AccessDeniedError,
    BadChunkError,
    CheckpointError,
    ClusterLostError,
    DaskmixError,
    IncompleteStoreError,
    InputError,
    InputTypeError,
    PassRepeatedWarning,
    SchemaError,
    SourceUnavailableError,
    StalledError,
    StalledWarning,
    StoreExistsError,
    StoreNotFoundError,
    VariableNotFoundError,
    WorkersLostError,
)

BAD_INPUT = (
    InputError,
    InputTypeError,
    StoreNotFoundError,
    StoreExistsError,
    VariableNotFoundError,
    BadChunkError,
    AccessDeniedError,
    SchemaError,
    IncompleteStoreError,
    CheckpointError,
)
MAY_PASS = (SourceUnavailableError, StalledError, ClusterLostError, WorkersLostError)
TEMPORARY = 75  # EX_TEMPFAIL of sysexits.h: try again later
DEBUG = "daskmix.debug"
WORDS = "daskmix.words"  # in the context of a command: its own for what Python calls otherwise


class BadInput(click.ClickException):
    """What was given cannot be used."""

    exit_code = 2


class MayPass(click.ClickException):
    """What failed may go away by itself."""

    exit_code = TEMPORARY


def _told(error: Exception, meta: Mapping[str, Any]) -> click.ClickException:
    """An error as one line on stderr, with its exit code."""
    error = _of_the_cluster(error) or error
    said = _said(error, meta)
    if isinstance(error, MAY_PASS):
        return MayPass(said)
    if isinstance(error, BAD_INPUT):
        return BadInput(said)
    expected = isinstance(error, DaskmixError)
    return click.ClickException(said if expected else f"{type(error).__name__}: {said} (--debug shows where)")


def _of_the_cluster(error: Exception) -> Exception | None:
    """An error that Dask raised bare, or a network, as one of ours."""
    if isinstance(error, DaskmixError):
        return None
    from daskmix.again import transient

    if "distributed" in sys.modules:  # which takes long to import
        from daskmix.engines.cluster import as_daskmix_error

        found = as_daskmix_error(error)
        if found is not None:
            return found
    return SourceUnavailableError(f"{type(error).__name__}: {error}; run it again") if transient(error) else None


def _said(message: object, meta: Mapping[str, Any]) -> str:
    """On one line, in the words of the command."""
    said = told(" ".join(str(message).split()), meta)
    for python, word in meta.get(WORDS, as_options()).items():
        said = said.replace(python, word)
    return said


class Commands(click.Group):
    """Commands whose errors come out as one line.

    Exit code 2 is for bad usage or input, 75 for what may go away by itself, 1 for anything else.
    """

    hanging = False  # whether threads hang in what they read

    def main(self, *args: Any, **kwargs: Any) -> Any:
        self.hanging = False
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            if end.code == TEMPORARY and self.hanging:
                # Python would wait for the threads that hang in a read.
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(TEMPORARY)
            if end.code:
                atexit.register(_hear_no_more)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = partial(_warn, ctx.meta)
                for category in (PassRepeatedWarning, StalledWarning):
                    warnings.simplefilter("always", category)  # each time is news
                return super().invoke(ctx)
        except click.ClickException as error:
            vars(error)["message"] = told(error.message, ctx.meta)
            raise
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click knows what to do about these
        except Exception as error:
            self.hanging = getattr(error, "hanging", False)
            if ctx.meta.get(DEBUG):
                traceback.print_exc()
            raise _told(error, ctx.meta) from error


def _hear_no_more() -> None:
    """Requests that were under way when another failed are cut off with the interpreter: no news, and many lines."""
    sys.unraisablehook = lambda unraisable: None


def _warn(meta: Mapping[str, Any], message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    click.echo(f"Warning: {_said(message, meta)}", err=True)
