"""Processes that tests start, kill and replace: a Dask cluster of the command line, an object store, a bad network."""

import os
import random
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = str(Path(__file__).parent.parent)


def free_port():
    """A port that nobody listens at now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def eventually(true, seconds=30):
    """Wait until something holds."""
    deadline = time.time() + seconds
    while not true():
        assert time.time() < deadline, "it never came true"
        time.sleep(0.02)


class Kept:
    """A process that is started again when it ends, as pods are."""

    def __init__(self, *command, **environment):
        self.command = [sys.executable, *map(str, command)]
        self.environment = os.environ | {"PYTHONPATH": ROOT} | environment
        self.process = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _keep(self):
        while not self._ending.is_set():
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            while self.process.poll() is None and not self._ending.is_set():
                time.sleep(0.02)

    def close(self):
        self._ending.set()
        self._thread.join()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def dask_processes(workers, nanny="--nanny", **environment):
    """`dask scheduler` and `dask worker`s, each started again when it ends: address, scheduler, workers."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    there = ["--host", "127.0.0.1", "--no-dashboard"]
    scheduler = Kept("-m", "dask", "scheduler", *there, "--port", port, **environment)
    mine = ["-m", "dask", "worker", address, "--nthreads", "1", nanny, "--death-timeout", "20", *there]
    kept = [Kept(*mine, **environment) for _ in range(workers)]
    try:
        yield address, scheduler, kept
    finally:
        for process in [*kept, scheduler]:
            process.close()


@contextmanager
def object_store():
    """moto's S3 server as a process of its own: its address."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers():
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True

    try:
        eventually(answers)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


class Network:
    """An HTTP proxy before a server, which may be bad in the ways of networks and busy servers."""

    def __init__(self, target):
        self.target = target.removeprefix("http://")
        self.share, self.status = 0.0, 503  # of GETs for a part of an array that are answered so
        self.refuses = 0  # a status that everything is answered with
        self.delay = 0.0  # seconds before a part of an array is given
        self.down = False  # connections are closed without an answer
        self.asked = 0  # requests, of any kind
        self.failed = 0
        self._draw = random.Random(0)
        self._lock = threading.Lock()
        network = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                network.handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def handle(self, request):
        """Pass a request on, or do not."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        chunk = request.command == "GET" and "/c/" in request.path
        with self._lock:
            self.asked += 1
            fails = chunk and self._draw.random() < self.share
            self.failed += fails or self.down
        if self.down:
            request.close_connection = True
            return
        if chunk and self.delay:
            time.sleep(self.delay)
        if self.refuses or fails:
            self._answer(request, self.refuses or self.status, {}, b"")
            return
        connection = HTTPConnection(self.target, timeout=30)
        try:
            connection.request(request.command, request.path, body, dict(request.headers))
            answer = connection.getresponse()
            self._answer(request, answer.status, dict(answer.headers), answer.read())
        except (OSError, HTTPException):
            request.close_connection = True
        finally:
            connection.close()

    def _answer(self, request, status, headers, body):
        request.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                request.send_header(name, value)
        if "content-length" not in {name.lower() for name in headers}:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        with suppress(OSError):
            request.wfile.write(body)
