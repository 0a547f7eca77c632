"""Calls as Qwen3-Coder, Qwen 3.5 and Nemotron 3 write them, with a tag for each parameter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from envgym.chat.tool_formats.base import listed
from envgym.chat.tool_formats.json_calls import malformed, read_block
from envgym.chat.tool_formats.scanning import leads, scanner
from envgym.chat.tool_formats.tagged_values import TaggedFormat, Types, decode, encode, types_of
from envgym.records import ToolCall, ToolSpec

__all__ = ["Qwen3CoderFormat"]

_OPENING = re.compile(r"(?:<tool_call>\s*)?<function=|<tool_call>")
_NAME = re.compile(r"\s*+([^\s<>=][^<>\n=]*+)>")
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]*)>")
_VALUE_END = re.compile(r"</parameter>(?=\s*(?:<parameter=|</function>|</tool_call>|\Z))")
_UNCLOSED_END = re.compile(r"\n?(?=<parameter=|</function>)")
_END = re.compile(r"\s*</function>(?:\s*</tool_call>)?")
_AFTER = re.compile(r"</function>(?:\s*</tool_call>)?|</tool_call>|(?=<tool_call>)|(?=<function=)")
_TAGS = re.compile(r"</?(?:parameter|function|tool_call)\b")


class Qwen3CoderFormat(TaggedFormat):
    """``<function=name><parameter=key>value</parameter></function>`` inside ``<tool_call>``."""

    marks = scanner(_OPENING.pattern)

    @classmethod
    def recognises(cls, template: str) -> bool:
        """Look for the tags."""
        return "<function=" in template and "<parameter=" in template

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """List the tools as JSON, and show the form of a call."""
        return (
            f"You may call tools:\n{listed(tools)}\nWrite a call as\n<tool_call>\n<function=NAME>\n"
            "<parameter=PARAMETER>\nVALUE\n</parameter>\n</function>\n</tool_call>\nand wait for the answer."
        )

    def block(self, call: ToolCall, types: Types) -> str:
        """Write a tag for the call, and tags for each value."""
        values = [
            f"<parameter={key}>\n{encode(value, types.get(key), _TAGS)}\n</parameter>\n"
            for key, value in call.arguments.items()
        ]
        return f"<tool_call>\n<function={call.name}>\n{''.join(values)}</function>\n</tool_call>"

    def read(
        self, tools: Sequence[ToolSpec], text: str, found: re.Match[str]
    ) -> tuple[list[ToolCall], int] | None:
        """Read the calls that begin at a mark; see ``read_message``."""
        begins = leads(text, found.start())
        if not found[0].endswith("="):
            return read_block(text, found.end(), opening=_OPENING, closing="</tool_call>", leads=begins)
        name = _NAME.match(text, found.end())
        if name is None:
            rest = text[found.end() : found.end() + 80]
            return (
                ([malformed("it is cut short")], len(text))
                if "<" not in rest and ">" not in rest and begins
                else None
            )
        called = name[1].strip()
        types = types_of(tools, called)
        arguments: dict[str, Any] = {}
        place = name.end()
        while key := _PARAMETER.match(text, place):
            end = _VALUE_END.search(text, key.end()) or _UNCLOSED_END.search(text, key.end())
            if end is None:
                return [_cut(called)], len(text)
            value = text[key.end() : end.start()].removeprefix("\n")
            value = value.removesuffix("\n")
            arguments[key[1]] = decode(value, types.get(key[1]))
            place = end.end()
        ending = _END.match(text, place)
        if ending is None and text[place:].strip():
            after = _AFTER.search(text, place)
            return [ToolCall(name=called, error="the tool call has text that belongs to no parameter")], (
                after.end() if after else len(text)
            )
        if ending is None and not arguments:
            return [_cut(called)], len(text)
        call = ToolCall(name=called, arguments=arguments)
        return [call], ending.end() if ending else len(text)


def _cut(name: str) -> ToolCall:
    return ToolCall(name=name, error="the tool call is cut short")
