"""A proxy that passes chat requests on, and breaks a share of the answers as servers and gateways do.

It notes what it delivered whole, so that an episode can be compared with what its model really said.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx

__all__ = ["MARK", "BreakingProxy"]

_BEFORE = ("reset", "empty", "busy", "busy until", "overloaded", "page", "no choices", "error in 200")
"""Faults that need no answer of the model."""
_AFTER = ("delay", "cut", "wrong ids", "broke off", "filtered")
MARK = "Game "
"""What the first question begins with, before the number of the game and a colon."""


class BreakingProxy:
    """Stands between a client and a server.

    Args:
        upstream: base address of the server, without ``/v1``.
        share: of the answers that are broken, between 0 and 1.
        seed: of the draws.
    """

    def __init__(self, upstream: str, share: float, seed: int) -> None:
        self.delivered: dict[str, list[dict[str, Any]]] = {}
        """By the number of the game: the choices that reached the client, in order."""
        self.counts: Counter[str] = Counter()
        self._upstream = upstream
        self._share = share
        self._draws = random.Random(seed)
        self._client = httpx.AsyncClient(timeout=600.0, limits=httpx.Limits(max_connections=None))

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve, and give the base address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1000)
        async with self._client, server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            size = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length"))
            request = json.loads(await reader.readexactly(size))
            broken = self._draws.random() < self._share
            fault = self._draws.choice(_BEFORE + _AFTER) if broken else "whole"
            self.counts[fault] += 1
            answer = self._before(fault) if fault in _BEFORE else await self._asked(request, fault)
            writer.write(answer)
            await writer.drain()

    def _before(self, fault: str) -> bytes:
        soon = email.utils.formatdate(time.time() + 2, usegmt=True)
        return {
            "reset": b"",
            "empty": _http(200, b""),
            "busy": _http(429, b'{"error": {"message": "slow down"}}', "Retry-After: 1.5"),
            "busy until": _http(503, b"{}", f"Retry-After: {soon}"),
            "overloaded": _http(529, b'{"type": "error", "error": {"type": "overloaded_error"}}'),
            "page": _http(200, b"<html><body>502 Bad Gateway</body></html>"),
            "no choices": _http(200, b'{"object": "chat.completion", "choices": []}'),
            "error in 200": _http(200, b'{"error": {"message": "upstream failed", "code": 502}}'),
        }[fault]

    async def _asked(self, request: dict[str, Any], fault: str) -> bytes:
        answer = await self._client.post(f"{self._upstream}/v1/chat/completions", json=request)
        if answer.status_code != httpx.codes.OK:
            self.counts[f"upstream {answer.status_code}"] += 1
            return _http(answer.status_code, answer.content)
        body = answer.json()
        choice = body["choices"][0]
        if fault == "delay":
            await asyncio.sleep(self._draws.uniform(0.5, 3.0))
        elif fault == "wrong ids":
            for call in choice["message"].get("tool_calls") or ():
                call["id"] = "call_0"
        elif fault == "broke off":
            choice["finish_reason"] = "error"
        elif fault == "filtered":
            choice.update(finish_reason="content_filter", message={"role": "assistant", "content": ""})
        content = json.dumps(body).encode()
        if fault == "cut":
            return _http(200, content)[: -len(content) // 2]
        if fault not in ("broke off", "filtered"):
            self.delivered.setdefault(_game(request), []).append(choice)
        return _http(200, content)


def _http(status: int, body: bytes, *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status} X", "Connection: close", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


def _game(request: dict[str, Any]) -> str:
    """Return the number of the game that the conversation is; ``""`` for one of another kind."""
    asked = next((m["content"] for m in request["messages"] if MARK in m["content"]), "")
    return str(asked.partition(MARK)[2].split(":")[0])
