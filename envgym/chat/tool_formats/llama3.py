"""Calls as Llama 3 writes them: bare JSON, with ``parameters``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from envgym.chat.tool_formats.base import ToolFormat, listed
from envgym.chat.tool_formats.json_calls import UnreadableCallError, malformed, read_block, read_json
from envgym.chat.tool_formats.python_calls import read_call
from envgym.chat.tool_formats.scanning import leads, read_message, scanner
from envgym.records import Message, ToolCall, ToolSpec

__all__ = ["Llama3Format"]

_TAG = "<|python_tag|>"
_BARE = r"^[ \t]*+(?:[\[;][ \t]*+)?\{(?=\s*\"(?:name|type|function|parameters|arguments)\"\s*:)"
_OPENING = re.compile(rf"{re.escape(_TAG)}|{_BARE}", re.MULTILINE)
_MARKS = scanner(_OPENING.pattern)
_CERTAIN = re.compile(
    r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"(?:name|function)"\s*:\s*"[^"\\\n]*"\s*,\s*"(?:parameters|arguments)"'
)
_BUILTIN = re.compile(r"\s*(\w+)\.call(?=\()")


class Llama3Format(ToolFormat):
    """``{"name": …, "parameters": {…}}``, behind ``<|python_tag|>`` or where a line begins."""

    @classmethod
    def recognises(cls, template: str) -> bool:
        """Look for the tag, or the header of the family."""
        return _TAG in template or "<|start_header_id|>" in template

    def parse(self, text: str) -> Message:
        """Read an assistant message; other JSON than a call is content."""
        return read_message(text, _MARKS, _read)

    def render(self, message: Message) -> str:
        """Write content, then one call a line."""
        bodies = [{"name": call.name, "parameters": call.arguments} for call in message.tool_calls]
        return "\n".join(filter(None, [message.content, *(json.dumps(b, ensure_ascii=False) for b in bodies)]))

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """List the tools as JSON, and show the form of a call."""
        return (
            f"You may call tools:\n{listed(tools)}\n"
            'Write a call as {"name": "...", "parameters": {...}} on a line of its own and wait for the answer.'
        )


def _read(text: str, found: re.Match[str]) -> tuple[list[ToolCall], int] | None:
    if found[0] == _TAG:
        return _tagged(text, found)
    start = found.end() - 1
    try:
        value, end = read_json(text, start)
    except UnreadableCallError as error:
        return [malformed(str(error))] if _CERTAIN.match(text, start) else [], error.at
    if not _is_call(value):
        return [], end
    if "[" in found[0]:
        start = text.index("[", found.start())
    return read_block(text, start, opening=_OPENING, closing="<|eom_id|>", leads=True) or ([], end)


def _is_call(value: object) -> bool:
    """Return true for a call: JSON that only has a name besides may be an answer about somebody."""
    if not isinstance(value, dict):
        return False
    inner = value.get("function")
    call = inner if isinstance(inner, dict) else value
    named = isinstance(call.get("name"), str)
    return named and (bool(call.keys() & {"parameters", "arguments"}) or call.keys() == {"name"})


def _tagged(text: str, found: re.Match[str]) -> tuple[list[ToolCall], int] | None:
    builtin = _BUILTIN.match(text, found.end())
    if builtin:
        try:
            call, end = read_call(text, builtin.end(), builtin[1])
        except UnreadableCallError as error:
            return [malformed(str(error), builtin[1])], len(text)
        return [call], end
    begins = leads(text, found.start())
    made = read_block(text, found.end(), opening=_OPENING, closing="<|eom_id|>", leads=begins)
    if made is None and begins:
        return [malformed("it does not begin with an object")], len(text)
    return made
