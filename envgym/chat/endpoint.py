"""An OpenAI-compatible chat endpoint: vLLM, SGLang, llama.cpp, transformers serve."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import httpx

from envgym.errors import EpisodeError, UserError

__all__ = ["ChatEndpoint", "ConversationTooLong"]

_ATTEMPTS = 4
_RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
_MAX_BODY = 8 * 2**20
_TOO_LONG = ("context_length_exceeded", "context length", "context size", "maximum context")
"""Words by which OpenAI, vLLM, SGLang and llama.cpp say that a conversation is too long."""


class ConversationTooLong(Exception):
    """The server says that the conversation does not fit its model."""


class ChatEndpoint:
    """Requests completions, and retries on errors that another attempt may not meet.

    The key, if the server wants one, is read from ``ENVGYM_API_KEY`` and appears in no message or log.

    Args:
        url: base address, e.g. ``http://127.0.0.1:8000/v1``.
        failure: error that an outage raises: the policy's or the verifier's.
        timeout: seconds for one request.
        pause: seconds before the first retry; each further one waits twice as long.

    Raises:
        UserError: the address is not one of a server, or no header can hold the key.
    """

    def __init__(self, url: str, *, failure: type[EpisodeError], timeout: float, pause: float) -> None:
        self._key = os.environ.get("ENVGYM_API_KEY", "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UserError("ENVGYM_API_KEY holds characters that no HTTP header may hold")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._url = _address(url)
        self._failure = failure
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout)
        self._pause = pause

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the first choice of the server's answer to ``body``.

        Raises:
            ConversationTooLong: the server says so.
            EpisodeError: of the kind ``failure``: no server, or an answer that is not a chat completion.
        """
        problem = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._pause * 2 ** (attempt - 1))
            try:
                status, text = await self._post(body)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if status == httpx.codes.OK:
                return self._first_choice(text)
            if status in (400, 413, 422) and any(words in text for words in _TOO_LONG):
                raise ConversationTooLong
            problem = f"HTTP {status}: {text[:300]}"
            if status not in _RETRIED:
                break
        if self._key:
            problem = problem.replace(self._key, "[key]")
        raise self._failure(f"no completion from {self._url.copy_with(userinfo=b'')}: {problem}")

    async def _post(self, body: dict[str, Any]) -> tuple[int, str]:
        async with self._client.stream("POST", self._url, json=body) as response:
            content = bytearray()
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > _MAX_BODY:
                    raise self._failure(f"the server's answer is larger than {_MAX_BODY} bytes")
            return response.status_code, content.decode("utf-8", "replace")

    def _first_choice(self, text: str) -> dict[str, Any]:
        try:
            choice: dict[str, Any] = json.loads(text)["choices"][0]
            if not isinstance(choice["message"], dict):
                raise TypeError("message is not an object")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise self._failure(f"the server's answer is not a chat completion: {error!r}") from None
        return choice


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url.rstrip("/") + "/chat/completions")
    except httpx.InvalidURL as error:
        raise UserError(f"no server can have the address {url!r:.200}: {error}") from None
    if address.scheme not in ("http", "https") or not address.host:
        raise UserError(f"a server's address reads http://HOST:PORT/v1, got {url!r:.200}")
    return address
