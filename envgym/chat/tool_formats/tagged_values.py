"""Values that a format writes between tags without their types: ``5`` may be a number or a text."""

from __future__ import annotations

import abc
import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from envgym.chat.tool_formats.base import ToolFormat
from envgym.chat.tool_formats.json_calls import UnreadableCallError, read_json
from envgym.chat.tool_formats.python_calls import read_literal
from envgym.chat.tool_formats.scanning import read_message
from envgym.records import Message, ToolCall, ToolSpec

__all__ = ["TaggedFormat", "Types", "decode", "encode", "types_of"]

Types = Mapping[str, frozenset[str]]
"""The types of JSON that each parameter of a tool takes; a parameter that is not there may take any."""
_QUOTED = "\\u003c"
"""The sign ``<`` in a string that ``encode`` has quoted, and nobody else."""


class TaggedFormat(ToolFormat):
    """A format whose values stand there without their types, which ``parse_for`` takes from the tool's schema."""

    marks: ClassVar[re.Pattern[str]]
    """What a call may begin with; see ``read_message``."""

    @abc.abstractmethod
    def block(self, call: ToolCall, types: Types) -> str:
        """Return the text of one call, whose parameters have these types."""

    @abc.abstractmethod
    def read(
        self, tools: Sequence[ToolSpec], text: str, found: re.Match[str]
    ) -> tuple[list[ToolCall], int] | None:
        """Read the calls that begin at a mark; see ``read_message``."""

    def parse(self, text: str) -> Message:
        """Read an assistant message; values that are JSON are taken as such."""
        return self.parse_for(text, ())

    def parse_for(self, text: str, tools: Sequence[ToolSpec]) -> Message:
        """Read an assistant message; values are of the types that the tools declare."""
        return read_message(text, self.marks, functools.partial(self.read, tools))

    def render(self, message: Message) -> str:
        """Write content, then one block per call; a text that reads as another type is quoted."""
        return self.render_for(message, ())

    def render_for(self, message: Message, tools: Sequence[ToolSpec]) -> str:
        """Write content, then one block per call, with values as the tools' schemas allow."""
        blocks = [self.block(call, types_of(tools, call.name)) for call in message.tool_calls]
        return "\n".join(filter(None, [message.content, *blocks]))


def types_of(tools: Sequence[ToolSpec], name: str) -> Types:
    """Return the types of the parameters of the tool called ``name``."""
    spec = next((tool for tool in tools if tool.name == name), None)
    properties = spec.parameters.get("properties") if spec else None
    if not isinstance(properties, dict):
        return {}
    return {key: found for key, schema in properties.items() if (found := frozenset(_types(schema)))}


def _types(schema: Any) -> list[str]:
    """Return the types that a schema names; none where it refers to another."""
    if not isinstance(schema, dict) or "$ref" in schema:
        return []
    named = schema.get("type", [])
    found = [named] if isinstance(named, str) else [t for t in named if isinstance(t, str)]
    for key in ("anyOf", "oneOf"):
        options = schema.get(key)
        for option in options if isinstance(options, list) else []:
            found += _types(option) or ["any"]
    return found


def decode(text: str, types: frozenset[str] | None) -> Any:
    """Return the value of a text between tags: text where the parameter is one, else JSON or Python's literal.

    What is neither stays text, and the tool's schema says what is wrong with it.
    """
    text_only = types == frozenset({"string"})
    if text_only and not (text.startswith('"') and _QUOTED in text):
        return text
    value = _literal(text, read_json)
    if types and not types & {"string", "any"} and value is _NOTHING:
        value = _literal(text, read_literal)
    if value is _NOTHING or (text_only and not isinstance(value, str)):
        return text
    return value


def encode(value: Any, types: frozenset[str] | None, marks: re.Pattern[str]) -> str:
    """Return the text that ``decode`` reads as ``value``; a string that holds one of ``marks`` is quoted."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if not marks.search(value) and decode(value, types) == value:
        return value
    # A string that needs no quotes for its own marks needs one that ``decode`` knows.
    return json.dumps(value, ensure_ascii=False).replace("<", _QUOTED)


_NOTHING = object()


def _literal(text: str, read: Any) -> Any:
    stripped = text.strip()
    try:
        value, end = read(stripped, 0)
    except UnreadableCallError:
        return _NOTHING
    return value if end == len(stripped) else _NOTHING
