"""OpenStack swift with its S3 interface, as four small processes: it checks signatures and keeps its data."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos.processes import ROOT, Process, answers, free_ports, wait_until

VENV = Path(os.environ.get("CHAOS_VENV", ROOT / ".chaos"))
KEY, SECRET, BUCKET = "test:tester", "testing", "rows"
SERVERS = ("account", "container", "object")  # that keep something

HASH = "[swift-hash]\nswift_hash_path_suffix = chaos\n\n[storage-policy:0]\nname = only\ndefault = yes\n"
COMMON = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}
mount_check = false
recon_cache_path = {folder}
log_level = WARNING
"""
STORAGE = """
[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
"""
PROXY = f"""
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck listing_formats s3api tempauth copy slo proxy-server

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:gatekeeper]
use = egg:swift#gatekeeper

[filter:healthcheck]
use = egg:swift#healthcheck

[filter:listing_formats]
use = egg:swift#listing_formats

[filter:s3api]
use = egg:swift#s3api
s3_acl = false
location = us-east-1

[filter:tempauth]
use = egg:swift#tempauth
user_{KEY.replace(":", "_")} = {SECRET} .admin

[filter:copy]
use = egg:swift#copy

[filter:slo]
use = egg:swift#slo

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
"""


@dataclass
class Swift:
    """The four processes, over a folder that outlives them."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    running: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ports = dict(zip(("proxy", *SERVERS), free_ports(4), strict=True))
        (self.folder / "disk").mkdir(parents=True)
        (self.folder / "swift.conf").write_text(HASH)
        for kind, port in self.ports.items():
            common = COMMON.format(port=port, user=getpass.getuser(), folder=self.folder)
            own = PROXY if kind == "proxy" else STORAGE.format(kind=kind)
            (self.folder / f"{kind}.conf").write_text(common + own)
        for kind in SERVERS:
            builder = str(self.folder / f"{kind}.builder")
            where = f"r1z1-127.0.0.1:{self.ports[kind]}/disk"
            for words in (["create", "4", "1", "1"], ["add", where, "1"], ["rebalance"]):
                subprocess.run([VENV / "bin/swift-ring-builder", builder, *words], check=True, capture_output=True)

    @property
    def endpoint(self) -> str:
        return endpoint(self.ports["proxy"])

    def start(self) -> None:
        for kind in (*SERVERS, "proxy"):
            command = [VENV / f"bin/swift-{kind}-server", self.folder / f"{kind}.conf", "-v"]
            self.running.append(Process(f"swift-{kind}", command, self.folder))
        for kind, port in self.ports.items():
            wait_until(f"swift's {kind} server listens", lambda port=port: answers("127.0.0.1", port))

    def kill(self) -> None:
        """All four at once, by SIGKILL."""
        for process in self.running:
            process.end()
        self.running.clear()


@contextmanager
def swift(folder: Path) -> Iterator[Swift]:
    """A server with an empty bucket, for as long as it is needed."""
    with ExitStack() as ending:
        server = Swift(folder)
        ending.callback(server.kill)
        server.start()
        files(server.endpoint).mkdir(BUCKET)
        yield server


def installed() -> bool:
    """Whether `make chaos` has made the server's environment."""
    return (VENV / "bin/swift-proxy-server").exists()


def endpoint(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def environment(endpoint: str, secret: str = SECRET) -> dict[str, str]:
    """What a process must find in its environment so that s3:// means this server."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def files(endpoint: str):
    """The same server as a file system, for the tests' own hands."""
    import s3fs

    return s3fs.S3FileSystem(
        key=KEY, secret=SECRET, endpoint_url=endpoint, skip_instance_cache=True, use_listings_cache=False
    )  # fmt: skip
