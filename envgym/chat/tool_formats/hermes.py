"""Calls as Hermes, Qwen 2.5 and Qwen 3 write them, and as SmolLM2 and the built-in model are taught."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from envgym.chat.tool_formats.base import ToolFormat, listed
from envgym.chat.tool_formats.json_calls import read_block
from envgym.chat.tool_formats.scanning import leads, read_message, scanner
from envgym.records import Message, ToolCall, ToolSpec

__all__ = ["HermesFormat"]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_OPENING = re.compile(re.escape(_OPEN))
_MARKS = scanner(_OPENING.pattern)


class HermesFormat(ToolFormat):
    """``<tool_call>{"name": …, "arguments": {…}}</tool_call>``."""

    @classmethod
    def recognises(cls, template: str) -> bool:
        """Look for the tag, without the tags that other families write inside it."""
        return _OPEN in template and not any(tag in template for tag in ("<function=", "<arg_key>"))

    def parse(self, text: str) -> Message:
        """Read an assistant message; the content keeps the text outside the calls."""
        return read_message(text, _MARKS, _read)

    def render(self, message: Message) -> str:
        """Write content, then one block per call; a closing tag inside an argument is ``<\\/tool_call>``."""
        return "\n".join([part for part in (message.content, *map(_block, message.tool_calls)) if part])

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """List names, descriptions and parameters as JSON, and show the form of a call."""
        return (
            f"You may call tools:\n{listed(tools)}\n"
            'Write a call as <tool_call>{"name": "...", "arguments": {...}}</tool_call> and wait for the answer.'
        )


def _block(call: ToolCall) -> str:
    body = {"name": call.name, "arguments": call.arguments}
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False).replace(_CLOSE, "<\\/tool_call>")
    return f"{_OPEN}{text}{_CLOSE}"


def _read(text: str, found: re.Match[str]) -> tuple[list[ToolCall], int] | None:
    begins = leads(text, found.start())
    return read_block(text, found.end(), opening=_OPENING, closing=_CLOSE, leads=begins)
