"""A threaded HTTP server of JSON on the loopback address."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

__all__ = ["HttpReply", "HttpServer"]


class HttpReply(NamedTuple):
    """An answer in JSON."""

    body: Any
    status: int = 200


Handle = Callable[[str, str, Mapping[str, str], Any], HttpReply]
"""Answers a request, from its method, its path, its query and its body."""


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, handle: Handle, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.handle = handle
        self.open: set[socket.socket] = set()
        self.authorizations: set[str] = set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no errors."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def _respond(self) -> None:
        self.server.authorizations.add(self.headers.get("Authorization", ""))
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        answer = self.server.handle(
            self.command, parts.path, dict(parse_qsl(parts.query)), json.loads(content) if content else None
        )
        data = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


class HttpServer:
    """Answers requests with ``handle``, each connection in a thread of its own; port 0 is a free one."""

    def __init__(self, handle: Handle, port: int = 0) -> None:
        self._listener = _Listener(handle, port)
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self.url = f"http://127.0.0.1:{self._listener.server_port}"

    @property
    def authorizations(self) -> set[str]:
        """Authorization headers of the requests so far; ``""`` stands for none."""
        return self._listener.authorizations

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection. Safe to call twice."""
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()
        for connection in list(self._listener.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
