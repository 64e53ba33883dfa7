"""Bytes under names, written whole or not at all: in a folder, behind a URL, or in a Zarr store."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore

from daskmix.errors import bare_url
from daskmix.objects import listing, synchronous


class Vault(ABC):
    """Objects that a user's path, URL or Zarr store holds.

    Whatever goes wrong beneath is an OSError; what is not there is a FileNotFoundError.
    """

    def __init__(self, place: Any) -> None:
        self.place = place

    def __str__(self) -> str:
        return bare_url(str(self.place))

    def list(self) -> Iterable[str]:
        """The names of all objects."""
        return _as_os_error(lambda: listing(self.place))

    def get(self, key: str) -> bytes:
        """The bytes of an object."""
        found: bytes = _as_os_error(lambda: self._get(key))
        return found

    def put(self, key: str, data: bytes) -> None:
        """Write an object, whole."""
        _as_os_error(lambda: self._put(key, data))

    def create(self, key: str, data: bytes) -> None:
        """Write an object that is not there yet.

        Raises
        ------
        FileExistsError
            It is there, with other bytes.
        """
        try:
            _as_os_error(lambda: self._create(key, data))
        except OSError:
            # Those who refuse say so in different words; and one that was tried twice may be ours.
            try:
                there = self.get(key)
            except FileNotFoundError:
                there = None
            if there is None:
                raise
            if there != data:
                raise FileExistsError(f"{key} is there already") from None

    def delete(self, keys: Iterable[str]) -> None:
        """Let go of objects; those that are not there are no matter."""
        for key in keys:
            with suppress(FileNotFoundError):
                _as_os_error(partial(self._delete, key))

    @abstractmethod
    def _get(self, key: str) -> bytes: ...

    @abstractmethod
    def _put(self, key: str, data: bytes) -> None: ...

    @abstractmethod
    def _create(self, key: str, data: bytes) -> None: ...

    @abstractmethod
    def _delete(self, key: str) -> None: ...


def vault(place: Any) -> Vault:
    """What a path, a URL or a Zarr store holds."""
    if isinstance(place, LocalStore):
        return _Folder(place.root)
    if isinstance(place, FsspecStore):
        return _Remote(place, synchronous(place.fs), place.path)
    if isinstance(place, Store):
        return _InStore(place)
    name = os.fspath(place)
    if "://" not in name or name.startswith("file://"):
        return _Folder(Path(name.removeprefix("file://")))
    return _Remote(name, *fsspec.url_to_fs(name))


def _as_os_error(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except OSError:
        raise
    except Exception as error:  # each kind of store has its own
        raise OSError(f"{type(error).__name__}: {error}") from error


class _Folder(Vault):
    """Files; a new one is written beside its place and synchronised, then moved there."""

    def _get(self, key: str) -> bytes:
        return (self.place / key).read_bytes()

    def _put(self, key: str, data: bytes) -> None:
        os.replace(self._written(key, data), self.place / key)

    def _create(self, key: str, data: bytes) -> None:
        written = self._written(key, data)
        try:
            os.link(written, self.place / key)
            _synchronise((self.place / key).parent)
        finally:
            written.unlink()

    def _written(self, key: str, data: bytes) -> Path:
        folder = (self.place / key).parent
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f"{uuid4().hex}.part"
        try:
            with open(beside, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        return beside

    def _delete(self, key: str) -> None:
        (self.place / key).unlink()


def _synchronise(folder: Path) -> None:
    """So that names in it outlive a loss of power."""
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


class _Remote(Vault):
    """What fsspec reaches; an object store writes an object whole, or not at all."""

    def __init__(self, place: Any, fs: Any, root: str) -> None:
        super().__init__(place)
        self.fs, self.root = fs, root.rstrip("/")

    def _get(self, key: str) -> bytes:
        data: bytes = self.fs.cat_file(f"{self.root}/{key}")
        return data

    def _put(self, key: str, data: bytes) -> None:
        self.fs.pipe_file(f"{self.root}/{key}", data)

    def _create(self, key: str, data: bytes) -> None:
        self.fs.pipe_file(f"{self.root}/{key}", data, mode="create")

    def _delete(self, key: str) -> None:
        self.fs.rm_file(f"{self.root}/{key}")


class _InStore(Vault):
    """Any other Zarr store."""

    def _get(self, key: str) -> bytes:
        found = _done(self.place.get(key, default_buffer_prototype()))
        if found is None:
            raise FileNotFoundError(key)
        data: bytes = found.to_bytes()
        return data

    def _put(self, key: str, data: bytes) -> None:
        _done(self.place.set(key, self._buffer(data)))

    def _create(self, key: str, data: bytes) -> None:
        _done(self.place.set_if_not_exists(key, self._buffer(data)))
        if self._get(key) != data:  # a store does not say that it refused
            raise FileExistsError(key)

    def _delete(self, key: str) -> None:
        _done(self.place.delete(key))

    @staticmethod
    def _buffer(data: bytes) -> Any:
        return default_buffer_prototype().buffer.from_bytes(data)


def _done(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """By an event loop in a thread of its own: in Jupyter this one has a loop that is running."""
    with ThreadPoolExecutor(1, thread_name_prefix="daskmix-store") as thread:
        return thread.submit(asyncio.run, coroutine).result()
