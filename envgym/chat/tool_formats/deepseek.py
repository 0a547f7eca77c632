"""Calls as DeepSeek V3, R1 and V3.1 write them, between special tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from envgym.chat.tool_formats.base import ToolFormat, listed
from envgym.chat.tool_formats.json_calls import UnreadableCallError, make_call, malformed, read_json
from envgym.chat.tool_formats.python_calls import NAME
from envgym.chat.tool_formats.scanning import leads, read_message, scanner
from envgym.records import Message, ToolCall, ToolSpec

__all__ = ["DeepSeekFormat", "DeepSeekV31Format"]

_ALL, _ALL_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_ONE, _SEP, _ONE_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"


def _loose(mark: str) -> str:
    """Return a pattern of a mark as models without these tokens spell it, too."""
    return re.escape(mark).replace("｜", "[｜|]").replace("▁", r"(?:▁|_|\\_| )")


_OPENING = re.compile(rf"(?:{_loose(_ALL)}\s*)?{_loose(_ONE)}|{_loose(_ALL)}")
_MARKS = scanner(_OPENING.pattern)
_HEAD = re.compile(
    rf"\s*(?:function\s*{_loose(_SEP)}\s*({NAME})\s*|({NAME})\s*{_loose(_SEP)}\s*)(?:```(?:json)?\s*)?"
)
_TAIL = re.compile(rf"\s*(?:```)?\s*(?:{_loose(_ONE_END)})?(?:\s*{_loose(_ALL_END)})?")
_CLOSE = re.compile(rf"{_loose(_ONE_END)}(?:\s*{_loose(_ALL_END)})?|{_loose(_ALL_END)}|(?={_loose(_ONE)})")


class DeepSeekFormat(ToolFormat):
    """``<｜tool▁call▁begin｜>function<｜tool▁sep｜>name``, then the arguments as a fence of JSON.

    What V3.1 writes is read, too.
    """

    @classmethod
    def recognises(cls, template: str) -> bool:
        """Look for the tokens around calls, or in lack of them around messages."""
        return not DeepSeekV31Format.is_of(template) and (_ONE in template or "<｜Assistant｜>" in template)

    def parse(self, text: str) -> Message:
        """Read an assistant message; the content keeps the text outside the calls."""
        return read_message(text, _MARKS, _read)

    def render(self, message: Message) -> str:
        """Write content, then all calls between their tokens."""
        if not message.tool_calls:
            return message.content
        return f"{message.content}{_ALL}" + "\n".join(map(self._one, message.tool_calls)) + _ALL_END

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """List the tools as JSON, and show the form of a call."""
        example = f"{_ALL}{_ONE}function{_SEP}NAME\n```json\n{{...}}\n```{_ONE_END}{_ALL_END}"
        return f"You may call tools:\n{listed(tools)}\nWrite a call as {example} and wait for the answer."

    def answer(self, content: str) -> str:
        """Return a tool's answer between the tokens that the family has for it."""
        return f"<｜tool▁output▁begin｜>{content}<｜tool▁output▁end｜>"

    def _one(self, call: ToolCall) -> str:
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        return f"{_ONE}function{_SEP}{call.name}\n```json\n{arguments}\n```{_ONE_END}"


class DeepSeekV31Format(DeepSeekFormat):
    """``<｜tool▁call▁begin｜>name<｜tool▁sep｜>{…}``; the other form is read, too."""

    @classmethod
    def is_of(cls, template: str) -> bool:
        """Return true if a template writes calls without a fence."""
        return _ONE in template and "```json" not in template

    @classmethod
    def recognises(cls, template: str) -> bool:
        """Look for the tokens around calls."""
        return cls.is_of(template)

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """List the tools as JSON, and show the form of a call."""
        example = f"{_ALL}{_ONE}NAME{_SEP}{{...}}{_ONE_END}{_ALL_END}"
        return f"You may call tools:\n{listed(tools)}\nWrite a call as {example} and wait for the answer."

    def _one(self, call: ToolCall) -> str:
        return f"{_ONE}{call.name}{_SEP}{json.dumps(call.arguments, ensure_ascii=False)}{_ONE_END}"


def _read(text: str, found: re.Match[str]) -> tuple[list[ToolCall], int] | None:
    head = _HEAD.match(text, found.end())
    if head is None:
        if not leads(text, found.start()) and found.end() < len(text):
            return None
        return [malformed("its name is missing")], _end(text, found.end())
    name = head[1] or head[2]
    try:
        arguments, end = read_json(text, head.end())
    except UnreadableCallError as error:
        return [malformed(str(error), name)], _end(text, error.at)
    tail = _TAIL.match(text, end)
    return [make_call({"name": name, "arguments": arguments})], tail.end() if tail else end


def _end(text: str, start: int) -> int:
    found = _CLOSE.search(text, start)
    return found.end() if found else len(text)
