"""Calls as Gemma 3 writes them: Python in a fence."""

from __future__ import annotations

import re
from collections.abc import Sequence

from envgym.chat.tool_formats.base import ToolFormat, listed
from envgym.chat.tool_formats.json_calls import UnreadableCallError
from envgym.chat.tool_formats.python_calls import read_calls, unreadable, write_call
from envgym.chat.tool_formats.scanning import read_message, scanner
from envgym.records import Message, ToolCall, ToolSpec

__all__ = ["GemmaFormat"]

_MARKS = scanner(r"^[ \t]*```tool_code\b[ \t]*\n?|^[ \t]*```tool_code\Z")
_PRINT = re.compile(r"\s*print\((?=\s*[A-Za-z_][\w.]*\()")
_FENCE = re.compile(r"\s*\)?\s*```")


class GemmaFormat(ToolFormat):
    """Calls on lines between `````tool_code`` and ```````; answers come between `````tool_output`` and ```````."""

    @classmethod
    def recognises(cls, template: str) -> bool:
        """Look for the marks around turns, where there are none of calls."""
        return "<start_of_turn>" in template and "<start_function_call>" not in template

    def parse(self, text: str) -> Message:
        """Read an assistant message; the content keeps the text outside the fences."""
        return read_message(text, _MARKS, _read)

    def render(self, message: Message) -> str:
        """Write content, then all calls in one fence."""
        lines = "\n".join(map(write_call, message.tool_calls))
        return "\n".join(filter(None, [message.content, lines and f"```tool_code\n{lines}\n```"]))

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """List the tools as JSON, and show the form of a call."""
        return (
            f"You may call tools:\n{listed(tools)}\n"
            "Write a call as\n```tool_code\nname(parameter=value, ...)\n```\nand wait for the answer."
        )

    def answer(self, content: str) -> str:
        """Return a tool's answer in the fence that the family has for it."""
        return f"```tool_output\n{content}\n```"


def _read(text: str, found: re.Match[str]) -> tuple[list[ToolCall], int] | None:
    printed = _PRINT.match(text, found.end())
    try:
        calls, end = read_calls(text, printed.end() if printed else found.end())
    except UnreadableCallError as error:
        last = text.find("```", error.at)
        return [unreadable(error)], last + 3 if last >= 0 else len(text)
    if closing := _FENCE.match(text, end):
        return calls, closing.end()
    last = text.find("```", end)
    if not text[end : last if last >= 0 else len(text)].strip(" \t\r\n)"):
        return calls, len(text)
    reason = ToolCall(name="", error="the tool call has text behind it that is no call")
    return [*calls, reason], last + 3 if last >= 0 else len(text)
