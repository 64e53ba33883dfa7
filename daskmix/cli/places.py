"""Where rows come from and answers go: stores, and what does the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from daskmix.errors import ClusterLostError, InputError, VariableNotFoundError, bare_url

RECONNECT = 900.0  # seconds in which a scheduler that was there may come back, if --stall does not end the waiting


def opened(source: str, variables: Sequence[str], weights: str | None = None, accept: bool = False) -> tuple[Any, Any]:
    """Rows and weights of a store, lazily; refused where writing the store was interrupted, or chunks are missing."""
    from daskmix.sources.zarr import open_path
    from daskmix.store import refuse_incomplete

    refuse_incomplete(source)
    X: Any = open_path(source, list(variables) or None, accept)
    if weights is None:
        return X.checked(), None
    weight = open_path(source, [weights], accept).checked().lazy
    if variables:
        return X.checked(), weight
    X = X.without(weights)
    if not X.lazy.data_vars:
        raise VariableNotFoundError(f"{source} has no variable beside the weights {weights!r}; nothing is left to fit")
    return X.checked(), weight


def apart(outputs: Sequence[str | None], inputs: Sequence[str | None]) -> None:
    """Refuse outputs that would replace an input, or each other."""

    places = [_place(output) for output in outputs if output is not None]
    for output, place in zip([o for o in outputs if o is not None], places, strict=True):
        for source in (i for i in inputs if i is not None):
            if f"{_place(source)}/".startswith(f"{place}/"):
                shown = bare_url(f"writing {output} would replace the input {source}; choose another path")
                raise click.UsageError(shown)
        if places.count(place) > 1:
            raise click.UsageError(f"{bare_url(output)} is named for two outputs; choose another path for one of them")


def free(outputs: Sequence[str | None], overwrite: bool, of: Any = None) -> None:
    """Refuse what cannot be written, before any work is done and lost; but for what was made `of` the same."""
    from daskmix.store import finished, vacant

    for output in outputs:
        if output is not None and not finished(output, of):
            vacant(output, overwrite, of)
            _refuse_below_a_file(output)


def begun(checkpoint: str | None) -> bool:
    """Whether a command has been given before: what is in its place may be its own, and its passes are not lost."""
    from daskmix.again import reached
    from daskmix.vault import vault

    return checkpoint is not None and bool(list(reached(checkpoint, vault(checkpoint).list)))


def _place(path: str) -> str:
    from daskmix.store import place_of

    place = place_of(path)
    return str(place.resolve()) if isinstance(place, Path) else path.rstrip("/")


def _refuse_below_a_file(path: str) -> None:
    from daskmix.store import place_of

    place = place_of(path)
    for above in place.resolve().parents if isinstance(place, Path) else ():
        if above.is_file():
            raise InputError(f"{path} cannot be written: {above} is a file; choose another path")


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """The cluster at this address, for as long as the work takes; nothing without an address."""
    if address is None:
        yield
        return
    from distributed import Client
    from distributed.comm import get_address_host
    from distributed.comm.core import FatalCommClosedError

    try:
        get_address_host(address)  # a client that finds no port in its address stays the default client
    except ValueError as error:
        raise click.UsageError(
            f"{address!r} is no address of a scheduler: {error}; write it as tcp://host:8786"
        ) from error
    try:
        # Waits as long as Dask's distributed.comm.timeouts.connect says: the address may be wrong.
        Client(address).close()
        # Later it is known to be right, and the scheduler may be on its way back.
        client = Client(address, timeout=RECONNECT)
    except (FatalCommClosedError, ValueError, TypeError, RuntimeError) as error:
        # Of certificates and protocols that do not fit: no other try would end otherwise.
        cause = error.__cause__ or error
        raise click.UsageError(
            f"the Dask scheduler at {address} and this client do not agree on TLS: {' '.join(str(cause).split())}; "
            "give the scheme that the scheduler has, tls:// or tcp://, and certificates of the same authority in "
            "Dask's configuration: DASK_DISTRIBUTED__COMM__TLS__CA_FILE, and CLIENT__CERT and CLIENT__KEY beside it"
        ) from error
    except OSError as error:
        raise ClusterLostError(
            f"no Dask scheduler answers at {address}: {' '.join(str(error).split())}; "
            "check the address (one that asks for TLS is reached as tls://), start one with `dask scheduler`, or leave "
            "out --scheduler"
        ) from error
    with client:
        yield
