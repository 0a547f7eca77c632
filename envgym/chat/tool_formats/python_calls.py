"""Read calls that are written as Python writes them, without Python: bounded in depth, linear in time."""

from __future__ import annotations

import json
import re
from typing import Any

from envgym.chat.tool_formats.json_calls import UnreadableCallError
from envgym.records import ToolCall
from envgym.strict_json import parse_json

__all__ = ["NAME", "read_call", "read_calls", "read_literal", "unreadable", "write_call", "write_literal"]

NAME = r"[A-Za-z_][\w.\-/]*+"
"""What a tool may be called."""
_MAX_DEPTH = 32
_SPACE = re.compile(r"(?:[\s\\]|#[^\n]*+)*+")
_NAME = re.compile(NAME)
_KEYWORD = re.compile(r"([^\W\d][\w\-]*+)\s*+[=:](?!=)")
_NUMBER = re.compile(r"[+-]?(?:\d[\d_]*+(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?")
_STRING = re.compile(
    r"""[rRuUbB]?(?:\"\"\"(?P<a>[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*+)\"\"\"|'''(?P<b>[^'\\]*+(?:(?:\\.|'(?!''))[^'\\]*+)*+)'''"""
    r"""|"(?P<c>[^"\\]*+(?:\\.[^"\\]*+)*+)"|'(?P<d>[^'\\]*+(?:\\.[^'\\]*+)*+)')""",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|(.))", re.DOTALL)
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "\n": ""}
_ITSELF = frozenset("\\'\"/`")
_WORDS = {"None": None, "null": None, "True": True, "true": True, "False": False, "false": False}
_CLOSING = {"[": "]", "(": ")", "{": "}"}


def read_literal(text: str, start: int, depth: int = 0) -> tuple[Any, int]:
    """Decode the literal that begins at ``start``: Python's or JSON's, real line breaks in strings included.

    Returns:
        the value, tuples as lists, and the place behind it.

    Raises:
        UnreadableCallError: it is no literal, cut short, or nested too deeply.
    """
    place = _space(text, start)
    if place >= len(text):
        raise UnreadableCallError("it is cut short", len(text))
    if string := _STRING.match(text, place):
        body = next(part for part in string.groups() if part is not None)
        raw = text[place] in "rR"
        return (body if raw else _unescaped(body)), string.end()
    if text[place] in _CLOSING:
        if depth >= _MAX_DEPTH:
            raise UnreadableCallError(f"nested deeper than {_MAX_DEPTH} levels", place + 1)
        return _read_items(text, place, depth)
    if number := _NUMBER.match(text, place):
        return _number(number[0], place), number.end()
    word = _NAME.match(text, place)
    if word and word[0] in _WORDS:
        return _WORDS[word[0]], word.end()
    if text[place] in "\"'":
        raise UnreadableCallError("a string has no end", len(text))
    raise UnreadableCallError(f"{text[place : place + 20]!r} is not a value", place + 1)


def read_call(text: str, start: int, name: str) -> tuple[ToolCall, int]:
    """Read the arguments of a call from its opening bracket: ``(k=v, **{"k": v})``.

    Raises:
        UnreadableCallError: they cannot be read, or one has no name.
    """
    arguments: dict[str, Any] = {}
    place = start + 1
    while True:
        place = _space(text, place)
        if text.startswith(")", place):
            break
        if text.startswith("**", place):
            more, place = read_literal(text, place + 2)
            if not isinstance(more, dict):
                raise UnreadableCallError("** stands before something that is no dictionary", place)
        else:
            key = _KEYWORD.match(text, place)
            if key is None:
                _, behind = read_literal(text, place)
                raise UnreadableCallError("arguments must be passed by name", behind)
            value, place = read_literal(text, key.end())
            more = {key[1]: value}
        if twice := arguments.keys() & more.keys():
            raise UnreadableCallError(f"{min(twice)!r:.40} is given twice", place)
        arguments |= more
        place = _separated(text, place, ")")
    try:
        return ToolCall(name=name, arguments=parse_json(json.dumps(arguments))), place + 1
    except ValueError as error:
        raise UnreadableCallError(str(error), place + 1) from None


def read_calls(text: str, start: int) -> tuple[list[ToolCall], int]:
    """Read calls from ``start``: a list of them in brackets, or as many as follow each other.

    Raises:
        UnreadableCallError: one cannot be read, or there is none.
    """
    calls: list[ToolCall] = []
    place = _space(text, start)
    bracket = text.startswith("[", place)
    place = _space(text, place + bracket)
    while True:
        if bracket and text.startswith("]", place):
            return calls, place + 1
        name = _NAME.match(text, place)
        opening = _space(text, name.end()) if name else place
        if name is None or not text.startswith("(", opening):
            if bracket or not calls:
                at = opening if opening >= len(text) else place + 1
                raise UnreadableCallError("it is cut short" if opening >= len(text) else "it is not a call", at)
            return calls, place
        call, place = read_call(text, opening, name[0])
        calls.append(call)
        place = _space(text, place)
        if text.startswith((",", ";"), place):
            place = _space(text, place + 1)


def write_literal(value: Any) -> str:
    """Return Python's literal of a value of JSON; strings are quoted as JSON quotes them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{write_literal(k)}: {write_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write_literal, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def write_call(call: ToolCall) -> str:
    """Return ``name(key=value, …)``; keys that are no names go into ``**{…}``."""
    named = {k: v for k, v in call.arguments.items() if _KEYWORD.fullmatch(f"{k}=")}
    parts = [f"{key}={write_literal(value)}" for key, value in named.items()]
    if rest := {k: v for k, v in call.arguments.items() if k not in named}:
        parts.append(f"**{write_literal(rest)}")
    return f"{call.name}({', '.join(parts)})"


def _space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _separated(text: str, place: int, closing: str) -> int:
    """Return the place of the next item or of the closing bracket behind an item.

    Raises:
        UnreadableCallError: neither follows.
    """
    place = _space(text, place)
    if text.startswith(",", place):
        return _space(text, place + 1)
    if not text.startswith(closing, place):
        cut = place >= len(text)
        raise UnreadableCallError(
            "it is cut short" if cut else f"a comma or {closing} is missing", place + (not cut)
        )
    return place


def _read_items(text: str, start: int, depth: int) -> tuple[Any, int]:
    closing = _CLOSING[text[start]]
    items: list[Any] = []
    pairs: dict[str, Any] = {}
    place = _space(text, start + 1)
    while not text.startswith(closing, place):
        item, place = read_literal(text, place, depth + 1)
        if closing == "}":
            place = _space(text, place)
            if not text.startswith(":", place):
                raise UnreadableCallError("a colon is missing", min(place + 1, len(text)))
            pairs[item if isinstance(item, str) else str(item)], place = read_literal(text, place + 1, depth + 1)
        items.append(item)
        place = _separated(text, place, closing)
    if closing == "}":
        return pairs, place + 1
    if closing == ")" and len(items) == 1 and not text[start:place].rstrip().endswith(","):
        return items[0], place + 1
    return items, place + 1


def _number(text: str, place: int) -> int | float:
    try:
        return float(text) if re.search(r"[.eE]", text) else int(text)
    except ValueError as error:
        raise UnreadableCallError(str(error), place + 1) from None


def _unescaped(body: str) -> str:
    def one(found: re.Match[str]) -> str:
        code = found[1] or found[2] or found[3]
        if code:
            number = int(code, 16)
            return chr(number) if number <= 0x10FFFF else found[0]
        if found[4]:
            return chr(int(found[4], 8))
        return _PLAIN.get(found[5], found[5] if found[5] in _ITSELF else found[0])

    if "\\" not in body:
        return body
    text = _ESCAPE.sub(one, body)
    # JSON writes characters beyond the first plane as two halves.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def unreadable(error: UnreadableCallError) -> ToolCall:
    """Return a call that is answered with the reason why it cannot be read."""
    return ToolCall(name="", error=f"the tool call cannot be read ({error!s:.100})")
