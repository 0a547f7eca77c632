"""A conversation as text for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable

from envgym.errors import UnknownNameError
from envgym.records import Message
from envgym.terminal import printable

__all__ = ["RENDER_MODES", "check_render_mode", "conversation_text"]

RENDER_MODES = ("ansi",)


def check_render_mode(mode: object) -> str | None:
    """Return ``mode`` if it is one.

    Raises:
        UnknownNameError: it is neither ``None`` nor one of ``RENDER_MODES``.
    """
    if mode is None or mode in RENDER_MODES:
        return None if mode is None else str(mode)
    raise UnknownNameError("render mode", str(mode), (*RENDER_MODES, "None"))


def conversation_text(messages: Iterable[Message]) -> str:
    """Return messages and tool calls as text; control characters are shown as escapes."""
    return printable("\n".join(line for message in messages for line in _lines(message)))


def _lines(message: Message) -> Iterable[str]:
    yield f"[{message.role}]" + (" (cut)" if message.cut else "")
    if message.content:
        yield message.content
    for call in message.tool_calls:
        yield f"-> {call.name} {call.error or json.dumps(call.arguments, ensure_ascii=False)}"
