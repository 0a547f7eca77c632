"""Calls as Mistral's models write them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from envgym.chat.tool_formats.base import ToolFormat, listed
from envgym.chat.tool_formats.json_calls import UnreadableCallError, malformed, read_block, read_json
from envgym.chat.tool_formats.python_calls import NAME
from envgym.chat.tool_formats.scanning import leads, read_message, scanner
from envgym.records import Message, ToolCall, ToolSpec

__all__ = ["MistralFormat"]

_TAG = "[TOOL_CALLS]"
_OPENING = re.compile(re.escape(_TAG))
_MARKS = scanner(_OPENING.pattern)
_NAMED = re.compile(rf"\s*+({NAME})(?:\[CALL_ID\](\w++))?\s*+(?:(\[ARGS\])\s*+)?(?:(?=\{{)|(\Z))")


class MistralFormat(ToolFormat):
    """``[TOOL_CALLS] [{"name": …, "arguments": {…}, "id": …}]``.

    Later models write ``[TOOL_CALLS]name[ARGS]{…}``. The ids that a model gives, of nine letters and digits, are
    kept.
    """

    @classmethod
    def recognises(cls, template: str) -> bool:
        """Look for the tag."""
        return _TAG in template

    def parse(self, text: str) -> Message:
        """Read an assistant message; the content keeps the text outside the calls."""
        return read_message(text, _MARKS, _read)

    def render(self, message: Message) -> str:
        """Write content, then all calls as one list."""
        bodies = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
        calls = f"{_TAG} {json.dumps(bodies, ensure_ascii=False)}" if bodies else ""
        return "\n".join(filter(None, [message.content, calls]))

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """List the tools as JSON, and show the form of calls."""
        return (
            f"You may call tools:\n{listed(tools)}\n"
            f'Write calls as {_TAG} [{{"name": "...", "arguments": {{...}}}}] and wait for the answers.'
        )


def _read(text: str, found: re.Match[str]) -> tuple[list[ToolCall], int] | None:
    begins = leads(text, found.start())
    named = _NAMED.match(text, found.end())
    if named is None:
        return read_block(text, found.end(), opening=_OPENING, closing="</s>", leads=begins)
    if named[4] is not None:
        return ([malformed("it is cut short", named[1])], len(text)) if begins or named[3] else None
    try:
        arguments, end = read_json(text, named.end())
    except UnreadableCallError as error:
        following = _OPENING.search(text, error.at)
        return [malformed(str(error), named[1])], following.start() if following else len(text)
    given = named[2] if named[2] and re.fullmatch(r"[a-zA-Z0-9]{9}", named[2]) else ""
    return [ToolCall(name=named[1], arguments=arguments, id=given)], end
