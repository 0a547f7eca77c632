"""A call's JSON is read as leniently as can be without guessing, and nothing in it is dropped silently."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envgym.chat.tool_formats.json_calls import (
    MAX_CHARACTERS,
    UnreadableCallError,
    make_call,
    read_block,
    read_json,
)

_STRINGS = st.text(max_size=20) | st.sampled_from(["</tool_call>", '"}', "\\", "\n\t", "[TOOL_CALLS]"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | _STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_STRINGS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(_STRINGS, _VALUES, max_size=3), st.text(max_size=10))
def test_a_value_ends_where_its_json_ends(value: dict[str, Any], behind: str) -> None:
    """Whatever stands behind it, and whatever marks its strings hold."""
    text = json.dumps(value)
    assert read_json(f"ab{text}{behind}", 2) == (value, 2 + len(text))


@pytest.mark.parametrize("sign", ["\n", "\r\n", "\t", "\x0b"])
def test_control_characters_in_strings_are_taken_as_they_stand(sign: str) -> None:
    assert read_json(f'{{"code": "a{sign}b"}}', 0)[0] == {"code": f"a{sign}b"}


@pytest.mark.parametrize(
    ("text", "reason", "at"),
    [
        ('{"a": "never', "Unterminated", "end"),
        ('{"a": ', "Expecting value", "end"),
        ('{"a": 1,} more', "", "inside"),
        ("{'a': 1}", "double quotes", "inside"),
        ('{"a": True}', "Expecting value", "inside"),
        ("[" * 5000, "nested", "end"),
        ("[" * 33 + "]" * 33, "nested deeper than 32", "end"),
        ('["\\ud800"]', "surrogate", "end"),
        ("[1e999]", "", "end"),
        ('"' + "a" * MAX_CHARACTERS + '"', "longer than", "end"),
    ],
)
def test_what_cannot_be_read_says_why_and_where(text: str, reason: str, at: str) -> None:
    with pytest.raises(UnreadableCallError) as caught:
        read_json(text, 0)
    assert reason in str(caught.value)
    assert caught.value.at == len(text) if at == "end" else 0 < caught.value.at < len(text)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "find", "arguments": {"q": "x"}},
        {"name": "find", "parameters": {"q": "x"}},
        {"name": "find", "arguments": '{"q": "x"}'},
        {"name": "find", "parameters": ' {"q": "x"} '},
        {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"q": "x"}'}},
        {"name": "find", "arguments": {"q": "x"}, "thought": "let me see"},
    ],
)
def test_spellings_of_one_call(body: dict[str, Any]) -> None:
    call = make_call(body, "7")
    assert (call.name, call.arguments, call.error, call.id) == ("find", {"q": "x"}, None, "7")


@pytest.mark.parametrize("arguments", ["", "  ", {}, "{}"])
def test_no_arguments(arguments: Any) -> None:
    call = make_call({"name": "look", "arguments": arguments})
    assert (call.arguments, call.error) == ({}, None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"name": "t", "arguments": '"{\\"a\\": 1}"'}, "must be an object"),  # a string in a string
        ({"name": "t", "arguments": '{"a": 1'}, "not valid JSON"),
        ({"name": "t", "arguments": '{"a": 1} {"b": 2}'}, "behind its JSON"),
        ({"name": "t", "parameters": [1]}, '"parameters" must be an object'),
        ({"name": "t", "path": "/tmp"}, "path beside its name"),
        ({"name": "t", "args": {"a": 1}}, "args beside its name"),
        ({"tool": "t", "arguments": {}}, 'needs a "name"'),
        ({"function": {"arguments": {}}}, 'needs a "name"'),
    ],
)
def test_arguments_are_never_dropped_silently(body: dict[str, Any], reason: str) -> None:
    call = make_call(body)
    assert call.error is not None
    assert reason in call.error


_OPEN = re.compile("<c>")


def _block(text: str, leads: bool = True) -> Any:
    return read_block(text, 3, opening=_OPEN, closing="</c>", leads=leads)


@pytest.mark.parametrize(
    ("text", "names", "rest"),
    [
        ('<c>{"name":"a"}</c> so', ["a"], " so"),
        ('<c>[{"name":"a"},{"name":"b"}]</c>', ["a", "b"], ""),
        ('<c>{"name":"a"}\n{"name":"b"}</c>', ["a", "b"], ""),
        ('<c>{"name":"a"}, {"name":"b"}', ["a", "b"], ""),
        ('<c>\n```json\n{"name":"a"}\n```\n</c>', ["a"], ""),
        ('<c>{"name":"a"}}</c>.', ["a"], "."),
        ('<c>{"name":"a"} and then', ["a"], " and then"),
        ('<c>{"name":"a"}<c>{"name":"b"}</c>', ["a"], '<c>{"name":"b"}</c>'),
    ],
)
def test_one_block_may_hold_several_calls(text: str, names: list[str], rest: str) -> None:
    calls, end = _block(text)
    assert [(call.name, call.error) for call in calls] == [(name, None) for name in names]
    assert text[end:] == rest


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ('<c>{"name":"a",}</c> so', " so"),
        ('<c>{"name":"a", "arguments": {"b": <c>{"name":"c"}</c>', '<c>{"name":"c"}</c>'),
        ('<c>{"name":"a", "argu', ""),
        ("<c>look()</c> so", " so"),
        ("<c>", ""),
    ],
)
def test_a_malformed_call_ends_with_its_mark_or_before_the_next(text: str, rest: str) -> None:
    calls, end = _block(text)
    assert [call.error is None for call in calls] == [False]
    assert text[end:] == rest


@pytest.mark.parametrize("text", ["<c> is a tag", "<c>, then <c>{", "<c>x</c>"])
def test_a_mark_without_json_is_prose(text: str) -> None:
    assert _block(text, leads=False) is None


@pytest.mark.parametrize("text", ["<c> and </c> stand around calls", "<c>...</c> is the form", "<c> opens one"])
def test_marks_that_begin_a_line_may_be_named_as_well(text: str) -> None:
    assert _block(text) is None
