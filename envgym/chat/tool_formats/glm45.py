"""Calls as GLM 4.5 and later write them, with tags for keys and values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from envgym.chat.tool_formats.base import listed
from envgym.chat.tool_formats.json_calls import read_block
from envgym.chat.tool_formats.python_calls import NAME
from envgym.chat.tool_formats.scanning import leads, scanner
from envgym.chat.tool_formats.tagged_values import TaggedFormat, Types, decode, encode, types_of
from envgym.records import ToolCall, ToolSpec

__all__ = ["Glm45Format"]

_OPENING = re.compile(r"<tool_call>")
_NAME = re.compile(rf"\s*({NAME})\s*(?=<arg_key>|</tool_call>|<tool_call>|\Z)")
_KEY = re.compile(r"\s*<arg_key>([^<]*)</arg_key>\s*<arg_value>")
_VALUE_END = re.compile(r"</arg_value>(?=\s*(?:<arg_key>|</tool_call>|<tool_call>|\Z))")
_END = re.compile(r"\s*</tool_call>")
_AFTER = re.compile(r"</tool_call>|(?=<tool_call>)")
_TAGS = re.compile(r"</?(?:arg_key|arg_value|tool_call)>")


class Glm45Format(TaggedFormat):
    """``<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>``."""

    marks = scanner(_OPENING.pattern)

    @classmethod
    def recognises(cls, template: str) -> bool:
        """Look for the tags."""
        return "<arg_key>" in template

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """List the tools as JSON, and show the form of a call."""
        return (
            f"You may call tools:\n{listed(tools)}\n"
            "Write a call as\n<tool_call>NAME\n<arg_key>PARAMETER</arg_key>\n"
            "<arg_value>VALUE</arg_value>\n</tool_call>\nand wait for the answer."
        )

    def block(self, call: ToolCall, types: Types) -> str:
        """Write a tag for the call, and tags for each value."""
        values = [
            f"<arg_key>{key}</arg_key>\n<arg_value>{encode(value, types.get(key), _TAGS)}</arg_value>\n"
            for key, value in call.arguments.items()
        ]
        return f"<tool_call>{call.name}\n{''.join(values)}</tool_call>"

    def read(
        self, tools: Sequence[ToolSpec], text: str, found: re.Match[str]
    ) -> tuple[list[ToolCall], int] | None:
        """Read the calls that begin at a mark; see ``read_message``."""
        begins = leads(text, found.start())
        name = _NAME.match(text, found.end())
        if name is None:
            return read_block(text, found.end(), opening=_OPENING, closing="</tool_call>", leads=begins)
        types = types_of(tools, name[1])
        arguments: dict[str, Any] = {}
        place = name.end()
        while key := _KEY.match(text, place):
            end = _VALUE_END.search(text, key.end())
            if end is None:
                return [_faulty(name[1], "is cut short")], len(text)
            arguments[key[1].strip()] = decode(text[key.end() : end.start()], types.get(key[1].strip()))
            place = end.end()
        ending = _END.match(text, place)
        if ending is None and (not arguments or text[place:].strip()):
            after = _AFTER.search(text, place)
            if not arguments and after is None and not begins:
                return None
            reason = "has text that belongs to no argument" if after else "is cut short"
            return [_faulty(name[1], reason)], after.end() if after else len(text)
        call = ToolCall(name=name[1], arguments=arguments)
        return [call], ending.end() if ending else len(text)


def _faulty(name: str, reason: str) -> ToolCall:
    return ToolCall(name=name, error=f"the tool call {reason}")
