"""Read calls that are written as JSON, as leniently as can be without guessing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from envgym.records import ToolCall
from envgym.strict_json import parse_json

__all__ = ["UnreadableCallError", "calls_of", "make_call", "malformed", "read_block", "read_json"]

MAX_CHARACTERS = 1_000_000
"""Length of one value at most."""
_DECODER = json.JSONDecoder(strict=False)
"""Takes line breaks and tabs in strings as they stand: models write code into arguments."""
_LEAD = re.compile(r"\s*(?:```(?:json)?\s*)?")
_TRAIL = r"[\s}\]`;,.]*"
_NESTED = re.compile(r'(?:[\[{:,\s]|"[^"\\]*+")*+')
_REST = re.compile(r"\s*")
_NEXT = re.compile(r"[\s;,]*(?=\{)")
_MENTION = re.compile(r"[\s.…,/&]*+(?:(?:and|or|to|with|then)\b)?[\s.…,/&]*+")
"""What stands between an opening and a closing mark that are only named."""
_ENVELOPE = {"name", "id", "type", "function", "index"}
"""Keys of a call beside its arguments; any other one may be an argument in the wrong place."""


class UnreadableCallError(ValueError):
    """A value that cannot be read.

    Args:
        reason: what is wrong with it.
        at: where reading stopped; the end of the text if it is cut short.
    """

    def __init__(self, reason: str, at: int) -> None:
        super().__init__(reason)
        self.at = at


def read_json(text: str, start: int) -> tuple[Any, int]:
    """Decode the JSON value that begins at ``start``, wherever it ends; marks inside its strings mean nothing.

    Returns:
        the value, which can be stored and sent on, and the place behind it.

    Raises:
        UnreadableCallError: it is not JSON, or too long, or something that ``parse_json`` refuses.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        cut = error.msg.startswith("Unterminated") or _REST.fullmatch(text, error.pos)
        raise UnreadableCallError(str(error), len(text) if cut else error.pos) from None
    except RecursionError:
        nested = _NESTED.match(text, start)
        raise UnreadableCallError("nested too deeply", nested.end() if nested else start + 1) from None
    except ValueError as error:  # a number of thousands of digits
        raise UnreadableCallError(str(error), start + 1) from None
    if end - start > MAX_CHARACTERS:
        raise UnreadableCallError(f"longer than {MAX_CHARACTERS} characters", end)
    try:
        return parse_json(json.dumps(value)), end
    except RecursionError:
        raise UnreadableCallError("nested too deeply", end) from None
    except ValueError as error:
        raise UnreadableCallError(str(error), end) from None


def malformed(reason: str, name: str = "") -> ToolCall:
    """Return a call that is answered with the reason why it cannot be read."""
    return ToolCall(name=name, error=f"the tool call is not valid JSON ({reason[:100]})")


def make_call(body: Any, call_id: str = "") -> ToolCall:
    """Return the call of a decoded ``{"name": …, "arguments": {…}}``; its ``error`` says what is wrong.

    ``parameters`` stands for ``arguments``, arguments may be JSON in a string, and all of it may be inside
    ``function``, as in the interface of OpenAI. Where neither is there, another key is not taken for nothing.
    """
    if isinstance(body, dict) and isinstance(body.get("function"), dict):
        body = body["function"]
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        return ToolCall(name="", id=call_id, error='a tool call needs a "name" string')
    name = body["name"]
    key = next((key for key in ("arguments", "parameters") if key in body), "")
    if not key and (other := sorted(body.keys() - _ENVELOPE)):
        reason = f'a tool call needs "arguments"; it has {", ".join(other)[:80]} beside its name'
        return ToolCall(name=name, id=call_id, error=reason)
    arguments = body[key] if key else {}
    if isinstance(arguments, str) and arguments.strip():
        try:
            arguments, end = read_json(arguments.strip(), 0)
        except UnreadableCallError as error:
            return ToolCall(name=name, id=call_id, error=f'"{key}" is not valid JSON ({str(error)[:100]})')
        if end < len(body[key].strip()):
            return ToolCall(name=name, id=call_id, error=f'"{key}" has text behind its JSON')
    elif isinstance(arguments, str):
        arguments = {}
    if not isinstance(arguments, dict):
        return ToolCall(name=name, id=call_id, error=f'"{key}" must be an object')
    return ToolCall(name=name, arguments=arguments, id=call_id)


def calls_of(value: Any) -> list[ToolCall]:
    """Return the calls of a decoded value: one, or those of a list."""
    return [make_call(body, _own_id(body)) for body in (value if isinstance(value, list) and value else [value])]


def read_block(
    text: str, start: int, *, opening: re.Pattern[str], closing: str, leads: bool
) -> tuple[list[ToolCall], int] | None:
    """Read the calls behind an opening mark: one value, several, or a list, with a closing mark or without.

    Args:
        text: the whole text.
        start: place behind the opening mark.
        opening: marks that begin a call; one of them ends a call that is malformed.
        closing: the mark that ends a call.
        leads: true if the opening mark stands where a line begins: only there is it no prose that lacks JSON.

    Returns:
        the calls, and the place behind them; ``None`` if the mark is only mentioned.
    """
    found = _LEAD.match(text, start)
    place = found.end() if found else start
    if place == len(text):
        return [malformed("it is cut short")], place
    if text[place] not in "{[":
        end = _end(text, place, opening, closing)
        closed = text.endswith(closing, place, end)
        mentioned = _MENTION.fullmatch(text, found.start() if found else place, max(place, end - len(closing)))
        if not leads or not closed or (mentioned and mentioned[0]):
            return None
        return [malformed("it does not begin with an object")], end
    calls: list[ToolCall] = []
    while True:
        try:
            value, place = read_json(text, place)
        except UnreadableCallError as error:
            return [*calls, malformed(str(error))], _end(text, error.at, opening, closing)
        calls += calls_of(value)
        more = _NEXT.match(text, place)
        if more is None:
            break
        place = more.end()
    ending = re.compile(_TRAIL + re.escape(closing)).match(text, place)
    return calls, ending.end() if ending else place


def _end(text: str, start: int, opening: re.Pattern[str], closing: str) -> int:
    """Return where a malformed call ends: behind its closing mark, before the next call, or with the text."""
    found = re.compile(f"(?P<closing_mark>{re.escape(closing)})|{opening.pattern}", opening.flags).search(
        text, start
    )
    if found is None:
        return len(text)
    return found.end() if found["closing_mark"] is not None else found.start()


def _own_id(body: Any) -> str:
    """Return the id that a model gave to its call, where templates can take it back."""
    given = body.get("id") if isinstance(body, Mapping) else None
    return given if isinstance(given, str) and re.fullmatch(r"[a-zA-Z0-9]{9}", given) else ""
