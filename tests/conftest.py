"""What tests of several rooms need."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
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
# A shell ignores Ctrl-C in what it runs in the background, and programs inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class JudgeServer:
    """A server in the shape of chat completions that says yes to everything, unless ``reply`` is set."""

    url: str = ""
    reply: Callable[[dict[str, Any]], Any] = lambda shown: '{"correct": true}'
    """What is said of the texts that are shown."""
    status: int = 200
    seen: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the requests."""


@dataclass
class WebServer:
    """A server that sends the bytes of ``answer(body, n)``, the n-th request counted from 1.

    A list holds bytes and pauses in seconds. The connection is closed after each answer, unless ``keeps`` is set.
    """

    url: str = ""
    answer: Callable[[Any, int], Any] = lambda body, n: b""
    keeps: bool = False
    bodies: list[Any] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    connections: int = 0

    @staticmethod
    def reply(body: Any, status: int = 200, **headers: str) -> bytes:
        """Return a whole answer; a body that is no bytes is sent as JSON, ``retry_after`` as ``retry-after``."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"content-length": str(len(data)), **{k.replace("_", "-"): v for k, v in headers.items()}}
        head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + data

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        ends = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*ends), contextlib.closing(writer):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                size = next(
                    int(h.split(":")[1]) for h in head.splitlines() if h.lower().startswith("content-length")
                )
                self.heads.append(head)
                self.bodies.append(json.loads(await reader.readexactly(size)))
                answer = self.answer(self.bodies[-1], len(self.bodies))
                for piece in answer if isinstance(answer, list) else [answer]:
                    if isinstance(piece, float):
                        await asyncio.sleep(piece)
                    else:
                        writer.write(piece)
                        await writer.drain()
                if not self.keeps:
                    return


@pytest.fixture
def web_server() -> Iterator[WebServer]:
    """A server in an event loop, and a thread, of its own."""
    state, loop = WebServer(), asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(state.serve, "127.0.0.1", 0, backlog=1000))
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield state
    finally:

        async def end() -> None:
            server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


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
