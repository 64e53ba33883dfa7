"""Objects behind paths, URLs and Zarr stores: what is there, how large, and as of when."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import fsspec
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ZipStore

TAGS = ("ETag", "etag", "e_tag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")
CRAWLED = {"http", "https"}  # what fsspec calls a listing there follows the links of web pages


@dataclass(frozen=True, slots=True)
class Stat:
    """What a listing says of an object."""

    size: int | None  # bytes, None where the listing does not say
    tag: str  # changes when the object does: an etag, or a time; "" where there is neither


def listing(place: Any, prefix: str = "") -> dict[str, Stat]:
    """All objects of a store below a prefix, by their keys in the store: as few requests as the store allows.

    Parameters
    ----------
    place : str, path or Zarr store
        A local folder, a URL that fsspec knows, or an open store.
    prefix : str
        A folder within it, "" for all.

    Raises
    ------
    NotImplementedError
        There is no way to list its objects, as over HTTP.
    """
    prefix = prefix.strip("/")
    if isinstance(place, LocalStore):
        return _in_folder(str(place.root), prefix)
    if isinstance(place, FsspecStore):
        return _in_filesystem(synchronous(place.fs), place.path, prefix)
    if isinstance(place, Store):
        return _of_coroutine(_in_store(place, prefix))
    name = os.fspath(place)
    if "://" not in name or name.startswith("file://"):
        return _in_folder(name.removeprefix("file://"), prefix)
    fs, root = fsspec.url_to_fs(name)
    return _in_filesystem(fs, root, prefix)


def _in_folder(root: str, prefix: str) -> dict[str, Stat]:
    found: dict[str, Stat] = {}
    folders = [prefix]
    while folders:
        folder = folders.pop()
        try:
            entries = os.scandir(os.path.join(root, folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                key = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir():
                    folders.append(key)
                    continue
                try:
                    stat = entry.stat()
                except FileNotFoundError:  # deleted meanwhile, or a link to nowhere
                    continue
                found[key] = Stat(stat.st_size, str(stat.st_mtime_ns))
    return found


def _in_filesystem(fs: Any, root: str, prefix: str) -> dict[str, Stat]:
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if protocols & CRAWLED:
        raise NotImplementedError("objects cannot be listed over HTTP")
    root = root.strip("/")
    folder = "/".join(part for part in (root, prefix) if part)
    # Local paths, and those of fsspec's memory, begin with the slash that those of object stores lack.
    found = _found(fs, f"/{folder}" if fs.root_marker == "/" else folder)
    return {
        key: _stat(info)
        for name, info in found.items()
        if not name.endswith("/") and (key := name.strip("/").removeprefix(root).lstrip("/"))
    }


def _found(fs: Any, folder: str) -> dict[str, Any]:
    fs.invalidate_cache()  # what it remembers of an earlier listing may have changed
    try:
        return dict(fs.find(folder, detail=True))
    except FileNotFoundError:
        return {}


def _stat(info: dict[str, Any]) -> Stat:
    tag = next((str(info[name]) for name in TAGS if info.get(name)), "")
    return Stat(info.get("size"), tag.strip('"'))


def synchronous(fs: Any) -> Any:
    """The same filesystem, to be called from any thread: a store's own waits for an event loop."""
    if not getattr(fs, "asynchronous", False):
        return fs
    options = {name: value for name, value in fs.storage_options.items() if name not in ("asynchronous", "loop")}
    return type(fs)(*fs.storage_args, **options, asynchronous=False)


async def _in_store(store: Store, prefix: str) -> dict[str, Stat]:
    if not store.supports_listing:
        raise NotImplementedError(f"a {type(store).__name__} cannot list its objects")
    below = f"{prefix}/" if prefix else ""
    keys = [key async for key in store.list_prefix(below)]
    # Elsewhere to ask for the size of an object would be a request.
    known = isinstance(store, MemoryStore | ZipStore)
    return {key: Stat(await store.getsize(key) if known else None, "") for key in keys}


def _of_coroutine(coroutine: Coroutine[Any, Any, dict[str, Stat]]) -> dict[str, Stat]:
    """By an event loop in a thread of its own: in Jupyter this one has a loop that is running."""
    with ThreadPoolExecutor(1, thread_name_prefix="daskmix-list") as thread:
        return thread.submit(asyncio.run, coroutine).result()
