"""Trying again what a network or a server failed to give, and saying what could not be reached."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from daskmix.errors import AccessDeniedError, DaskmixError, SourceUnavailableError, bare_url

T = TypeVar("T")

SOURCE_PATIENCE = 240.0  # seconds for which a chunk is tried to be read: an object store is restarted in less
OPEN_PATIENCE = 15.0  # seconds for a store to be opened: someone waits, and its address may be wrong
LONGEST_WAIT = 20.0  # seconds between two tries, and at most a fifth of all

PASSING = {
    errno.EIO, errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED,
    errno.EPIPE, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN,
    getattr(errno, "EREMOTEIO", errno.EIO), getattr(errno, "ESTALE", errno.EIO),
}  # fmt: skip
# What these packages raise when a server or the way to it fails, by the names of their modules and classes.
OF_OTHERS = {
    "aiohttp": ("ClientConnectionError", "ClientPayloadError", "ServerTimeoutError"),
    "botocore.exceptions": ("ConnectionError", "HTTPClientError", "ResponseStreamingError", "IncompleteReadError"),
    "urllib3.exceptions": ("HTTPError",),
    "requests.exceptions": ("ConnectionError", "Timeout", "ChunkedEncodingError"),
}
# Of botocore, where it finds no secret to sign with, or only a part of it.
WITHOUT_SECRET = {"botocore.exceptions": ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError")}


def transient(error: BaseException) -> bool:
    """Whether this is a failure of a network or a server, which may pass; not one of the data."""
    return any(_transient(link) for link in _chain(error))


def denied(error: BaseException) -> bool:
    """Whether a server refuses whoever asks."""
    return any(
        _status(link) in (401, 403) or isinstance(link, PermissionError) or _is_one(link, WITHOUT_SECRET)
        for link in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from: packages wrap those of others."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _transient(error: BaseException) -> bool:
    if isinstance(error, DaskmixError | FileNotFoundError | PermissionError):
        return False
    status = _status(error)
    if status is not None:
        return status >= 500 or status in (408, 425, 429)
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return (isinstance(error, OSError) and error.errno in PASSING) or _is_one(error, OF_OTHERS)


def _is_one(error: BaseException, classes: Mapping[str, tuple[str, ...]]) -> bool:
    # Not imported: what was not, raised nothing.
    modules = ((sys.modules.get(module), names) for module, names in classes.items())
    return any(isinstance(error, getattr(m, name, ())) for m, names in modules if m is not None for name in names)


def _status(error: BaseException) -> int | None:
    """The status of the answer of a server over HTTP, where an error holds one."""
    answer: Any = getattr(error, "response", None)
    if isinstance(answer, dict):
        found: Any = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(answer, "status_code", None) or getattr(error, "status", None)
    return found if isinstance(found, int) and 400 <= found < 600 else None


def patiently(function: Callable[[], T], patience: float) -> T:
    """What a function returns, called again for so many seconds where it fails for what may pass.

    Waits grow, and are drawn at random, lest all workers ask a server at once that has just come back.
    """
    try:
        return function()  # tenacity costs as much as to read a small chunk
    except Exception as error:
        if not _worth_a_try(error):
            raise
    retrying = Retrying(
        retry=retry_if_exception(_worth_a_try),
        wait=wait_random_exponential(multiplier=0.5, max=min(LONGEST_WAIT, patience / 5)),
        stop=stop_after_delay(patience),
        reraise=True,
    )
    return retrying(function)


def _worth_a_try(error: BaseException) -> bool:
    return transient(error) and not isinstance(error, SourceUnavailableError)  # which was tried long enough


def unavailable(what: str, error: Exception) -> SourceUnavailableError:
    """What to raise for something that could not be read for so long."""
    return SourceUnavailableError(
        f"{what} could not be read for {SOURCE_PATIENCE:.3g} s: {type(error).__name__}: {error}; see whether its store "
        "can be reached, and run it again"
    )


def reached(name: Any, function: Callable[[], T]) -> T:
    """What a function finds at this path or URL.

    Raises
    ------
    AccessDeniedError
        Its server refuses these credentials.
    SourceUnavailableError
        It cannot be reached, or gives no answer, for some seconds.
    """
    where = bare_url(str(name))
    try:
        return patiently(function, OPEN_PATIENCE)
    except DaskmixError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}".replace(str(name), where)
        if "://" in where and denied(error):
            raise AccessDeniedError(
                f"{where} may not be read: {cause}; check the credentials in the environment, on workers too "
                "(AWS_ACCESS_KEY_ID and so on), and that they may read there"
            ) from error
        if transient(error):
            raise SourceUnavailableError(
                f"{where} cannot be reached: {cause}; check the network, the server and its address "
                "(AWS_ENDPOINT_URL and so on), and run it again"
            ) from error
        raise
