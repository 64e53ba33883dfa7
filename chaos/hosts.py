"""Hosts joined by a wire that can be cut, and disks that fill up: namespaces of the kernel, and mounts. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

NET = "10.213.77"


@dataclass(frozen=True)
class Hosts:
    """Both ends of the wire, by number."""

    names: tuple[str, str]

    def inside(self, host: int) -> tuple[str, ...]:
        """What to put before a command that is to run there."""
        return "ip", "netns", "exec", self.names[host]

    def address(self, host: int) -> str:
        return f"{NET}.{host + 1}"

    def cut(self) -> None:
        # The second host's end: the first, where the scheduler is, keeps its address.
        _ip("-n", self.names[1], "link", "set", "wire", "down")

    def heal(self) -> None:
        _ip("-n", self.names[1], "link", "set", "wire", "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def why_not() -> str:
    """Why there can be no hosts or disks of our own here; empty if there can."""
    if os.geteuid() != 0:
        return "NOT TRIED: only root can make network namespaces and mount disks; run `make chaos` as root"
    return "" if shutil.which("ip") else "NOT TRIED: there is no `ip` (iproute2) on this machine"


@contextmanager
def hosts() -> Iterator[Hosts]:
    """Two of them, for as long as they are needed."""
    both = Hosts((f"chaos-{os.getpid()}-a", f"chaos-{os.getpid()}-b"))
    first, second = both.names
    with ExitStack() as ending:
        for name in both.names:
            _ip("netns", "add", name)
            ending.callback(_ip, "netns", "del", name)
        _ip("-n", first, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", second)
        for number, name in enumerate(both.names):
            _ip("-n", name, "addr", "add", f"{both.address(number)}/24", "dev", "wire")
            for device in ("lo", "wire"):
                _ip("-n", name, "link", "set", device, "up")
        yield both


@contextmanager
def disk(place: Path, size: str) -> Iterator[Path]:
    """A disk with room for so much and no more, e.g. "1m"; gone with all that is on it afterwards."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "chaos", place], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True, capture_output=True)


def fill(place: Path) -> Path:
    """A file that takes all the room that is left; delete it to have room again."""
    ballast = place / "ballast"
    with suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast
