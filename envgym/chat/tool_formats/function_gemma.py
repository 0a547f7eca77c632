"""Calls as FunctionGemma and Gemma 4 write them: keys bare, texts between marks of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from envgym.chat.tool_formats.base import ToolFormat, listed
from envgym.chat.tool_formats.json_calls import UnreadableCallError
from envgym.chat.tool_formats.python_calls import NAME, read_literal, unreadable
from envgym.chat.tool_formats.scanning import leads, read_message, scanner
from envgym.records import Message, ToolCall, ToolSpec
from envgym.strict_json import parse_json

__all__ = ["FunctionGemmaFormat", "Gemma4Format"]

_MARKS = scanner(r"<start_function_call>|<\|tool_call>")
_OPENING = re.compile(r"<start_function_call>|<\|tool_call>")
_HEAD = re.compile(rf"\s*+call:\s*+({NAME})\s*+(?=\{{)")
_CLOSING = re.compile(r"\s*(?:<end_function_call>|<tool_call\|>)")
_END = re.compile(r"<end_function_call>|<tool_call\|>|(?=<start_function_call>)|(?=<\|tool_call>)")
_KEY = re.compile(r"\s*+([^\s:{}\[\],\"'<>][^:{}\[\],\"'<>\n]*+):")
_BARE = re.compile(r"[^\s,{}\[\]<>\"'][^,{}\[\]<>\"'\n]*+")
_SPACE = re.compile(r"\s*")
_MAX_DEPTH = 32


class FunctionGemmaFormat(ToolFormat):
    """``<start_function_call>call:name{key:<escape>text<escape>,n:1}<end_function_call>``.

    What Gemma 4 writes is read, too.
    """

    _open, _close, _quote = "<start_function_call>", "<end_function_call>", "<escape>"

    @classmethod
    def recognises(cls, template: str) -> bool:
        """Look for the mark of a call."""
        return cls._open in template

    def parse(self, text: str) -> Message:
        """Read an assistant message; the content keeps the text outside the calls."""
        return read_message(text, _MARKS, _read)

    def render(self, message: Message) -> str:
        """Write content, then the calls; a text that holds a mark is quoted as JSON quotes it."""
        return message.content + "".join(map(self._one, message.tool_calls))

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        """List the tools as JSON, and show the form of a call."""
        example = f"{self._open}call:NAME{{parameter:{self._quote}text{self._quote},other:1}}{self._close}"
        return f"You may call tools:\n{listed(tools)}\nWrite a call as {example} and wait for the answer."

    def _one(self, call: ToolCall) -> str:
        return f"{self._open}call:{call.name}{self._value(call.arguments)}{self._close}"

    def _value(self, value: Any) -> str:
        if isinstance(value, dict):
            pairs = [f"{self._key(key)}:{self._value(inner)}" for key, inner in value.items()]
            return "{" + ",".join(pairs) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(self._value, value)) + "]"
        if isinstance(value, str) and "<" not in value:
            return f"{self._quote}{value}{self._quote}"
        return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")

    def _key(self, key: str) -> str:
        found = _KEY.fullmatch(f"{key}:")
        return key if found and found[1] == key.strip() == key else self._value(key)


class Gemma4Format(FunctionGemmaFormat):
    """``<|tool_call>call:name{key:<|"|>text<|"|>,n:1}<tool_call|>``; FunctionGemma's are read, too."""

    _open, _close, _quote = "<|tool_call>", "<tool_call|>", '<|"|>'


def _read(text: str, found: re.Match[str]) -> tuple[list[ToolCall], int] | None:
    head = _HEAD.match(text, found.end())
    if head is None:
        end = _END.search(text, found.end())
        cut = end is None and len(text) - found.end() < 80
        if not leads(text, found.start()) or not (cut or (end and end[0])):
            return None
        return [unreadable(UnreadableCallError("it does not begin with call:", found.end()))], (
            end.end() if end else len(text)
        )
    try:
        arguments, place = _value(text, head.end(), 0)
        call = ToolCall(name=head[1], arguments=parse_json(json.dumps(arguments)))
    except ValueError as error:
        at = error.at if isinstance(error, UnreadableCallError) else head.end()
        end = _END.search(text, at)
        problem = UnreadableCallError(str(error), at)
        return [unreadable(problem)], end.end() if end else len(text)
    closing = _CLOSING.match(text, place)
    return [call], closing.end() if closing else place


def _space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _value(text: str, start: int, depth: int) -> tuple[Any, int]:
    """Decode the value at ``start``.

    Raises:
        UnreadableCallError: it cannot be read, or nests too deeply.
    """
    place = _space(text, start)
    if depth > _MAX_DEPTH:
        raise UnreadableCallError(f"nested deeper than {_MAX_DEPTH} levels", place)
    for quote in ("<escape>", '<|"|>'):
        if text.startswith(quote, place):
            end = text.find(quote, place + len(quote))
            if end < 0:
                raise UnreadableCallError("a text has no end", len(text))
            return text[place + len(quote) : end], end + len(quote)
    if text.startswith(("{", "["), place):
        return _items(text, place, depth)
    try:
        return read_literal(text, place)
    except UnreadableCallError:
        bare = _BARE.match(text, place)
        if bare is None:
            raise
        return bare[0].rstrip(), bare.end()


def _items(text: str, start: int, depth: int) -> tuple[Any, int]:
    closing = "}" if text[start] == "{" else "]"
    pairs: dict[str, Any] = {}
    items: list[Any] = []
    place = _space(text, start + 1)
    while not text.startswith(closing, place):
        key: Any = None
        if closing == "}":
            named = _KEY.match(text, place)
            key, place = (named[1].strip(), named.end()) if named else _quoted_key(text, place, depth)
        value, place = _value(text, place, depth + 1)
        items.append(value)
        pairs[str(key)] = value
        place = _space(text, place)
        if text.startswith(",", place):
            place = _space(text, place + 1)
        elif not text.startswith(closing, place):
            cut = place >= len(text)
            raise UnreadableCallError("it is cut short" if cut else f"a comma or {closing} is missing", place)
    return (pairs if closing == "}" else items), place + 1


def _quoted_key(text: str, start: int, depth: int) -> tuple[Any, int]:
    key, place = _value(text, start, depth + 1)
    place = _space(text, place)
    if not text.startswith(":", place):
        raise UnreadableCallError("a colon is missing", place)
    return key, place + 1
