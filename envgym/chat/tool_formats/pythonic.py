"""Calls as Llama 4, some Llama 3.2 and LFM 2 write them: a list of Python calls."""

from __future__ import annotations

import re
from collections.abc import Sequence

from envgym.chat.tool_formats.base import ToolFormat, listed
from envgym.chat.tool_formats.json_calls import UnreadableCallError
from envgym.chat.tool_formats.python_calls import NAME, read_calls, unreadable, write_call
from envgym.chat.tool_formats.scanning import leads, read_message, scanner
from envgym.records import Message, ToolCall, ToolSpec

__all__ = ["PythonicFormat"]

_TAGS = {"<|python_start|>": "<|python_end|>", "<|tool_call_start|>": "<|tool_call_end|>", "<|python_tag|>": ""}
_OPENING = re.compile(
    rf"{'|'.join(map(re.escape, _TAGS))}"
    rf"|^[ \t]*\[(?=\s*{NAME}\(\s*(?:\)|[^\W\d]\w*\s*=(?!=)|\*\*|[\"'\[{{]|\Z))",
    re.MULTILINE,
)
_MARKS = scanner(_OPENING.pattern)


class PythonicFormat(ToolFormat):
    """``[search(query="…", limit=3), …]``, where a line begins or behind a tag."""

    @classmethod
    def recognises(cls, template: str) -> bool:
        """Look for the tags of Llama 4 and LFM 2."""
        return any(tag in template for tag in ("<|python_start|>", "<|tool_call_start|>", "<|tool_list_start|>"))

    def parse(self, text: str) -> Message:
        """Read an assistant message; the content keeps the text outside the list."""
        return read_message(text, _MARKS, _read)

    def render(self, message: Message) -> str:
        """Write content, then the list on a line of its own."""
        calls = f"[{', '.join(map(write_call, message.tool_calls))}]" if message.tool_calls else ""
        return "\n".join(filter(None, [message.content, calls]))

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """List the tools as JSON, and show the form of calls."""
        return (
            f"You may call tools:\n{listed(tools)}\n"
            "Write calls on a line of their own as [name(parameter=value, ...), ...] and wait for the answers."
        )


def _read(text: str, found: re.Match[str]) -> tuple[list[ToolCall], int] | None:
    closing = _TAGS.get(found[0])
    start = found.end() if closing is not None else found.end() - 1
    try:
        calls, end = read_calls(text, start)
    except UnreadableCallError as error:
        if closing is not None and not leads(text, found.start()):
            return None
        last = text.find(closing or "]", error.at)
        return [unreadable(error)], last + len(closing or "]") if last >= 0 else len(text)
    behind = re.compile(rf"\s*{re.escape(closing or '')}").match(text, end)
    return calls, behind.end() if behind else end
