"""An OpenAI-compatible chat endpoint, which learns what its server does not take."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Collection
from typing import Any

from envgym.chat.answers import ChatAnswer, read_answer, read_error
from envgym.chat.overlong import is_overlong
from envgym.chat.refusals import PLAIN_ROLES, SYSTEM_ROLE, TEXT_CALLS, TOOLS, refused_parts
from envgym.errors import EpisodeError, UserError
from envgym.web.service import Answer, Refusal, WebService

__all__ = ["ChatEndpoint", "ConversationTooLong"]

_LESSONS = 12
"""Largest number of refusals that one request learns from."""
_TEACHING = frozenset({400, 404, 405, 406, 415, 422, 501})
_LOG = logging.getLogger(__name__)
_INSTEAD = {
    TOOLS: "the prompt describes them, and calls are read from the text",
    PLAIN_ROLES: "their text goes to the user",
    SYSTEM_ROLE: "its text goes to the user",
    TEXT_CALLS: "the calls are taken out of the text, and given as fields",
    "max_tokens": "max_completion_tokens is sent",
    "seed": "it is left out, and draws cannot be repeated",
    "temperature": "it is left out, and the server's own is used",
}
_ADVICE = {
    401: "set ENVGYM_API_KEY to a key that this server accepts",
    403: "set ENVGYM_API_KEY to a key that may use this model",
    404: "see that the address is right, mostly one that ends in /v1, and that the server knows such a model",
}


class ConversationTooLong(Exception):
    """The server says that the conversation does not fit its model."""


class _Lesson(Exception):
    """The server does not take these parts of a request."""

    def __init__(self, parts: frozenset[str]) -> None:
        super().__init__(parts)
        self.parts = parts


class ChatEndpoint:
    """Requests completions. What the server does not take is learnt from its refusals, once, and then left out.

    The key, if the server wants one, is read from ``ENVGYM_API_KEY`` and appears in no message or log.

    Args:
        url: base address, e.g. ``http://127.0.0.1:8000/v1``.
        failure: error that an outage raises: the policy's or the verifier's.
        timeout: seconds for one request.
        pause: seconds before the first retry; see ``WebService``.
        refused: names of fields that the server is known not to take, or ``TOOLS``.

    Raises:
        UserError: the address is not one of a server, or no header can hold the key.
    """

    def __init__(
        self,
        url: str,
        *,
        failure: type[EpisodeError],
        timeout: float,
        pause: float,
        refused: Collection[str] = (),
    ) -> None:
        key = os.environ.get("ENVGYM_API_KEY", "").strip()
        if not (key.isascii() and key.isprintable()):
            raise UserError("ENVGYM_API_KEY holds characters that no HTTP header may hold")
        self._service = WebService(
            url,
            path="/chat/completions",
            says="no completion from",
            failure=failure,
            timeout=timeout,
            pause=pause,
            key=key,
        )
        self._refused = frozenset(refused)

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._service.close()

    async def complete(self, write: Callable[[frozenset[str]], dict[str, Any]]) -> ChatAnswer:
        """Return the answer to the request that ``write`` makes of what the server is known to refuse.

        ``write`` minds ``TOOLS``, ``PLAIN_ROLES``, ``SYSTEM_ROLE``, ``TEXT_CALLS`` and the fields of messages;
        other fields are left out here.

        Raises:
            ConversationTooLong: the server says so.
            EpisodeError: of the kind ``failure``: no server, or no decided answer.
        """
        for _ in range(_LESSONS):
            known = self._refused
            sent = _without(write(known), known)

            def read(answer: Answer, sent: dict[str, Any] = sent, known: frozenset[str] = known) -> ChatAnswer:
                return _read(answer, sent, known)

            try:
                return await self._service.post(sent, read)
            except _Lesson as lesson:
                self._learn(lesson.parts - self._refused)
            except Refusal as refusal:
                advice = f" ({_ADVICE[refusal.status]})" if refusal.status in _ADVICE else ""
                raise self._service.failed(str(refusal), advice) from None
        raise self._service.failed("the server refuses one part of the request after the other")

    def _learn(self, parts: frozenset[str]) -> None:
        self._refused |= parts
        for part in sorted(parts):
            instead = _INSTEAD.get(part, "left out from now on")
            _LOG.warning("%s does not take %s: %s", self._service.address, part, instead)


def _read(answer: Answer, sent: dict[str, Any], known: frozenset[str]) -> ChatAnswer:
    answer = read_error(answer)
    if is_overlong(answer):
        raise ConversationTooLong
    # A server whose chat template raises may take it for an error of its own.
    template = answer.status >= 500 and re.search("jinja|chat template", answer.text, re.IGNORECASE)
    if answer.status in _TEACHING or template:
        parts = refused_parts(answer.text, sent) - known
        if parts:
            raise _Lesson(parts)
    return read_answer(answer, sent)


def _without(body: dict[str, Any], refused: frozenset[str]) -> dict[str, Any]:
    """Return ``body`` without refused fields; the limit of tokens has a second name, and is never given up."""
    kept = {name: value for name, value in body.items() if name not in refused}
    if "max_tokens" in body and "max_tokens" in refused:
        kept["max_completion_tokens"] = body["max_tokens"]
    return kept
