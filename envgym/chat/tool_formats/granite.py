"""Calls as Granite 3 writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from envgym.chat.tool_formats.base import ToolFormat, listed
from envgym.chat.tool_formats.json_calls import read_block
from envgym.chat.tool_formats.scanning import leads, read_message, scanner
from envgym.records import Message, ToolCall, ToolSpec

__all__ = ["GraniteFormat"]

_OPEN, _CLOSE = "<|tool_call|>", "</tool_call>"
_OPENING = re.compile(r"<\|tool_call\|>|<tool_call>")
_MARKS = scanner(_OPENING.pattern)


class GraniteFormat(ToolFormat):
    """``<|tool_call|>[{"name": …, "arguments": {…}}, …]``, and the tag of Granite 4."""

    @classmethod
    def recognises(cls, template: str) -> bool:
        """Look for the special token."""
        return _OPEN in template

    def parse(self, text: str) -> Message:
        """Read an assistant message; the content keeps the text outside the calls."""
        return read_message(text, _MARKS, _read)

    def render(self, message: Message) -> str:
        """Write content, then all calls as one list."""
        bodies = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
        calls = _OPEN + json.dumps(bodies, ensure_ascii=False) if bodies else ""
        return "\n".join(filter(None, [message.content, calls]))

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """List the tools as JSON, and show the form of a call."""
        return (
            f"You may call tools:\n{listed(tools)}\n"
            f'Write calls as {_OPEN}[{{"name": "...", "arguments": {{...}}}}] and wait for the answers.'
        )


def _read(text: str, found: re.Match[str]) -> tuple[list[ToolCall], int] | None:
    begins = leads(text, found.start())
    return read_block(text, found.end(), opening=_OPENING, closing=_CLOSE, leads=begins)
