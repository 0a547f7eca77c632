"""Every shipped policy keeps the contract; the one behind HTTP with a server whose answer is the seed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from envgym.env.run_sync import run_sync
from envgym.policies.interface import Policy, policies
from envgym.testing import PolicyContract


class TestRandomPolicy(PolicyContract):
    policy = "random"


class TestEmptyPolicy(PolicyContract):
    policy = "empty"


class TestModelPolicy(PolicyContract):
    policy = "model"
    settings: ClassVar[Mapping[str, Any]] = {"path": "builtin:tiny", "max_tokens": 8}


class SaysTheSeed(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"role": "assistant", "content": str(body["seed"])}
        data = json.dumps({"choices": [{"message": message}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Keep the output clean."""


class TestHttpPolicy(PolicyContract):
    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls) -> Iterator[Policy]:
        with ThreadingHTTPServer(("127.0.0.1", 0), SaysTheSeed) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
            address = f"http://127.0.0.1:{server.server_port}/v1"
            policy = policies.make("http", {"url": address, "model": "m"})
            yield policy
            run_sync(policy.close())
            server.shutdown()
