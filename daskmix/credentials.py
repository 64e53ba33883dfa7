"""Credentials that users put into what they pass as rows, and that so travel in the tasks of a cluster."""

from __future__ import annotations

import gc
import re
from collections import deque
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from fsspec import AbstractFileSystem
from zarr.abc.store import Store

from daskmix.errors import bare_url
from daskmix.rows import Rows

SECRET = re.compile(
    r"(^|_)(key|secret|token|password|passwd|credentials?|authorization|signature|connection_string)$", re.IGNORECASE
)
NO_SECRETS = {"anon", "cloud", "google_default", "cache", "browser"}  # values that some filesystems take for a token
LOOKED_AT = 5000  # objects: an array in a store takes some dozens, and data are not looked into
NODES = 16  # of the graph


def secrets_in(rows: Rows) -> list[str]:
    """What tasks that read these rows hold of credentials, by the names of options; never their values.

    Looked for in the first part, and in the first nodes of the graph: others are made alike.
    """
    found: dict[str, None] = {}
    nodes = [node for node, _ in zip(rows.graph.values(), range(NODES), strict=False)]
    for held in _within([part.load for part in rows.parts[:1]] + nodes):
        if isinstance(held, AbstractFileSystem):
            kind = type(held).__name__
            found |= dict.fromkeys(f"{name} of a {kind}" for name in _secret(held.storage_options))
        elif isinstance(held, Store):
            path = getattr(held, "path", "")
            if isinstance(path, str) and bare_url(path) != path:
                found[f"the URL of a {type(held).__name__}"] = None
            config = getattr(getattr(held, "store", None), "config", None)  # of obstore
            if isinstance(config, Mapping):
                found |= dict.fromkeys(f"{name} of a {type(held).__name__}" for name in _secret(config))
    return list(found)


def _secret(options: Mapping[str, Any]) -> Iterator[str]:
    """Names of options that hold secrets."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _secret(value)
        elif SECRET.search(str(name)) and value and isinstance(value, str) and value not in NO_SECRETS:
            yield str(name)


def _within(roots: list[Any]) -> Iterator[Any]:
    """What these hold, and what that holds, as far as it travels with them."""
    seen: set[int] = set()
    todo = deque(roots)
    while todo and len(seen) < LOOKED_AT:
        held = todo.popleft()
        if id(held) in seen or isinstance(held, type | ModuleType | BuiltinFunctionType):
            continue
        seen.add(id(held))
        yield held
        if isinstance(held, FunctionType):
            todo.extend([held.__closure__, held.__defaults__, held.__kwdefaults__])
        elif not isinstance(held, AbstractFileSystem):  # which holds loops and sessions that stay here
            todo.extend(gc.get_referents(held))
