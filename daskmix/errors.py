"""What can go wrong, each also the builtin exception it resembles."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from numbers import Integral
from typing import Any

SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
# A secret may hold slashes: what follows a colon is one unless it is the number of a port.
USER = re.compile(rf"({SCHEME})(?:[^/\s'\"]*@|[^/\s'\":]*:(?!\d+(?:/|$))[^\s'\"]*@)")
QUERY = re.compile(rf"({SCHEME}[^\s?#'\"]*)[?#][^\s'\")>]*")


def bare_url(text: str) -> str:
    """A path, a URL or a text without credentials: of URLs neither user nor password, nor the query (a signature)."""
    return QUERY.sub(r"\1", USER.sub(r"\1", text)) if "://" in text else text


class DaskmixError(Exception):
    """Base of every error that daskmix raises on purpose; its message holds no credentials of URLs."""

    def __init__(self, *args: object) -> None:
        self.args = tuple(bare_url(arg) if isinstance(arg, str) else arg for arg in args)


class InputError(DaskmixError, ValueError):
    """The rows, the weights or an option cannot be used as they are."""


class ChunkTooLargeError(InputError):
    """A chunk does not fit into the memory of a worker."""


class InputTypeError(DaskmixError, TypeError):
    """The rows are of a kind that daskmix does not read."""


class MissingPackageError(DaskmixError, ImportError):
    """A package is not installed that an optional part needs."""


def not_one_of(name: str, value: object, allowed: Sequence[object]) -> InputError:
    """The error for an unknown option, with the nearest that is known."""
    near = nearest(str(value), [word for word in allowed if isinstance(word, str)])
    hint = "" if near is None else f"; did you mean {near!r}?"
    return InputError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}{hint}")


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The one of these that was probably meant, if any."""
    return next(iter(get_close_matches(word, known, n=1, cutoff=0.3)), None)


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """An option that counts something.

    Raises
    ------
    InputError
        It is no whole number, or none of those that may be.
    """
    number = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else least - 1
    if number < least or (most is not None and number > most):
        within = f"at least {least}" if most is None else f"from {least} to {most:,}"
        raise InputError(f"{name}={value!r} must be a whole number, {within}")
    return number


class FeatureError(InputError):
    """The features are not those that the model was fitted on."""


class UnitsError(FeatureError):
    """A feature comes in other units than it had when the model was fitted."""


class CollapsedComponentError(InputError):
    """Components have too few rows, or a covariance is singular, so that its density is infinite."""

    components: tuple[int, ...] = ()  # none where it is the covariance that all share


def collapsed_components(components: Sequence[int], message: str) -> CollapsedComponentError:
    """The error that says which components collapsed."""
    error = CollapsedComponentError(message)
    error.components = tuple(components)
    return error


class StoreNotFoundError(DaskmixError, FileNotFoundError):
    """There is no store at this path or URL."""


class StoreExistsError(DaskmixError, FileExistsError):
    """The place to write to is taken."""


class VariableNotFoundError(DaskmixError, KeyError):
    """The store has no variable of this name."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument; a sentence should read as one.
        return str(self.args[0])


class BadChunkError(DaskmixError, OSError):
    """A chunk of the input cannot be read or decoded."""


class SourceUnavailableError(BadChunkError):
    """A store cannot be reached, or its server does not give what it is asked for; it may pass."""


class AccessDeniedError(DaskmixError, PermissionError):
    """A store is there, but may not be read with these credentials."""


class MissingChunksError(BadChunkError):
    """Chunks of the input are not there; Zarr would read them as the fill value."""


class UnwritableError(DaskmixError, OSError):
    """A store could not be written, as on a full disk."""


class UnsafeStoreError(InputError):
    """A store asks for a codec that runs what it reads."""


class SchemaError(DaskmixError, ValueError):
    """A stored model is not one that this version can read."""


class IncompleteStoreError(DaskmixError, ValueError):
    """A store was begun and never finished."""


class CheckpointError(DaskmixError, ValueError):
    """A checkpoint is of another fit, or nothing of it can be used."""


class DamagedError(CheckpointError):
    """What is stored is torn or was changed."""


class CheckpointTakenError(CheckpointError):
    """Another process writes to the same checkpoint."""


class VersionMismatchError(DaskmixError, RuntimeError):
    """Client, scheduler and workers do not run the same packages."""


class AsynchronousClientError(DaskmixError, RuntimeError):
    """The active client is asynchronous; a fit waits for its answers."""


class SecretsInGraphWarning(UserWarning):
    """What was passed as rows holds credentials, which go wherever its tasks go."""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written, or a damaged one was passed over."""


class ClusterLostError(DaskmixError, ConnectionError):
    """The Dask cluster is gone for good, or what was persisted on it."""


class WorkersLostError(DaskmixError, RuntimeError):
    """The same pass failed too often, each time because workers or connections were lost."""


class StalledError(DaskmixError, TimeoutError):
    """No part of a pass was finished for too long; the message says what was seen."""

    hanging: bool = False  # whether threads of this process hang in what they read


class ProgressWarning(UserWarning):
    """Progress could not be shown, and is not any more; the fit goes on."""


class PassRepeatedWarning(UserWarning):
    """A pass was submitted again, as the cluster lost something that it was made of."""


class StalledWarning(UserWarning):
    """No part of a pass was finished for long; the message says what is seen."""


class EmptyClusterWarning(UserWarning):
    """A cluster lost all its rows and was moved."""


class CollapsedComponentWarning(UserWarning):
    """A component lost its rows or its covariance; the message says what became of it."""


class MixedWorkersWarning(UserWarning):
    """Workers have different processors, so their bits may differ."""


class TightMemoryWarning(UserWarning):
    """All threads of a worker together may take more memory than it has."""


class ScratchFullWarning(UserWarning):
    """Scratch has no room for decoded chunks, so they are decoded again in every pass."""
