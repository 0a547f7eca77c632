"""What tests of several rooms need."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from envgym.sandbox.interface import Backend
from envgym.sandbox.selection import sandboxes

# Tests run in parallel processes: one that starts another must not take every core for its matrix products.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass
class JudgeServer:
    """A server in the shape of chat completions that says yes to everything, unless ``reply`` is set."""

    url: str = ""
    reply: Callable[[dict[str, Any]], Any] = lambda shown: '{"correct": true}'
    """What is said of the texts that are shown."""
    status: int = 200
    seen: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the requests."""


@pytest.fixture(scope="session")
def usable_backend() -> Callable[[str], type[Backend]]:
    """``usable_backend("docker")``: its class; skip where it does not work, and fail where CI promises it."""

    def load(name: str) -> type[Backend]:
        kind: type[Backend] = sandboxes.load(name)
        reason = kind.unavailable()
        if reason is not None:
            if os.environ.get(f"ENVGYM_REQUIRE_{name.upper()}") == "1":
                pytest.fail(f"{name} is required here: {reason}")
            pytest.skip(reason)
        return kind

    return load


@pytest.fixture
def judge_server() -> Iterator[JudgeServer]:
    state = JudgeServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.seen.append(body)
            content = state.reply(json.loads(body["messages"][1]["content"]))
            answer = {"choices": [{"message": {"role": "assistant", "content": content}}]}
            data = json.dumps(answer).encode()
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        state.url = f"http://127.0.0.1:{listener.server_port}/v1"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            listener.shutdown()
            thread.join()


@pytest.fixture
def disk_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every ``fsync`` with its path, and every rename with its new one, in order."""
    made: list[tuple[str, str]] = []
    sync, rename = os.fsync, Path.replace

    def fsync(number: int) -> None:
        made.append(("sync", str(Path(f"/proc/self/fd/{number}").readlink())))
        sync(number)

    def replace(path: Path, target: Path) -> Path:
        made.append(("rename", str(target)))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    return made
