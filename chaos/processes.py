"""Processes of the tests: each the leader of a group of its own, ended by id, its output kept in a file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parent.parent


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody has."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def wait_until(what: str, true: Callable[[], bool], seconds: float = 60, every: float = 0.05) -> float:
    """Seconds until something was true.

    Raises
    ------
    TimeoutError
    """
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"after {seconds} s still not: {what}")
        time.sleep(every)
    return time.monotonic() - began


def answers(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


class Process:
    """A command under way."""

    def __init__(self, name: str, command: Sequence[str], logs: Path, env: Mapping[str, str] | None = None) -> None:
        self.name, self.command = name, [str(word) for word in command]
        self.log = logs / f"{name}.log"
        self._file = open(self.log, "ab")  # noqa: SIM115
        self.began = time.monotonic()
        self.popen = subprocess.Popen(
            self.command,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its children can be ended with it
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """A signal to this process alone."""
        self.popen.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Its exit status."""
        return self.popen.wait(timeout=seconds)

    def end(self) -> None:
        """The whole group, at once; also one that was stopped."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(timeout=30)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.end()
