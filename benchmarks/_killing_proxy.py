"""A proxy that passes requests on, and in the middle of one of them does something to the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import httpx

__all__ = ["KillingProxy"]

_SECONDS = 0.002
"""Time for a request to arrive before ``kill`` is called."""
_HOP = {"connection", "content-length", "host", "transfer-encoding"}
"""Headers of one connection."""


class KillingProxy:
    """Stands between a client and a server while its context lasts.

    Args:
        upstream: base address of the server.
        path: of the request in whose middle the server is killed, once ``armed``.
        kill: called when that request has been sent, and before it is answered.
    """

    def __init__(self, upstream: str, path: str, kill: Callable[[], None]) -> None:
        self.armed = False
        self.killed = False
        """True once a request was under way when ``kill`` was called, and failed."""
        self._path = path
        self._kill = kill
        self._client = httpx.Client(base_url=upstream, timeout=600.0)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._client.close()

    def passed_on(self, method: str, path: str, headers: dict[str, str], body: bytes) -> httpx.Response | None:
        """Return the server's answer, or ``None`` if it died before it had one."""
        fatal = self.armed and path.partition("?")[0] == self._path
        if fatal:
            self.armed = False
            threading.Thread(target=lambda: (time.sleep(_SECONDS), self._kill())).start()
        try:
            return self._client.request(method, path, headers=headers, content=body)
        except httpx.HTTPError:
            self.killed |= fatal
            return None


def _handler(proxy: KillingProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            answer = proxy.passed_on(self.command, self.path, headers, body)
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("content-type", "text/plain"))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = _serve  # noqa: N815 - the names of http.server

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
