"""An HTTP proxy in front of an object store: it delays, refuses and cuts."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from chaos.swift import endpoint

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
REFUSAL = (
    b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'
)


class Between(ThreadingHTTPServer):
    """Hands requests on as they are, signatures included; what is wrong with it can be changed at any time."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behind: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind  # port
        self.delay = 0.0  # seconds, of each GET
        self.refused = 0.0  # share of GETs that are answered 503
        self.healed = threading.Event()  # while it is not set, nothing is answered
        self.healed.set()
        self.seen: Counter[str] = Counter()  # how often what was done
        self.chance = random.Random(0)

    @property
    def endpoint(self) -> str:
        return endpoint(self.server_address[1])

    def cut(self) -> None:
        self.healed.clear()

    def heal(self) -> None:
        self.healed.set()

    def handle_error(self, request: Any, address: Any) -> None:
        """Clients may leave: that is what is tried out."""
        self.seen["broken"] += 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Between

    def handle_request(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not server.healed.wait(0):
            server.seen["cut"] += 1
            server.healed.wait()
        server.seen[self.command] += 1
        if self.command == "GET":
            time.sleep(server.delay)
            if server.chance.random() < server.refused:
                server.seen["refused"] += 1
                self._answer(503, [("Content-Type", "application/xml")], REFUSAL)
                return
        try:
            onward = http.client.HTTPConnection("127.0.0.1", server.behind, timeout=60)
            onward.request(self.command, self.path, body, dict(self.headers.items()))
            answer = onward.getresponse()
            told = answer.status, answer.getheaders(), answer.read()
            onward.close()
        except (OSError, http.client.HTTPException):
            server.seen["nobody there"] += 1
            self.close_connection = True  # as the server itself would have done
            return
        self._answer(*told)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if self.command == "HEAD" and name.lower() == "content-length":
                length = value
            elif name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_request

    def log_message(self, *words: Any) -> None:
        """Counted instead."""


@contextmanager
def between(behind: int) -> Iterator[Between]:
    """The proxy, for as long as it is needed."""
    with Between(behind) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.heal()
            proxy.shutdown()
            thread.join()
