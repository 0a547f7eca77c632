"""Hermes tool calls: what cannot be read says why, beyond what the contract asks of every format."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.chat.tool_formats import MAX_CALLS, HermesFormat, make_call
from envgym.records import Message, ToolCall
from envgym.strict_json import parse_json

FORMAT = HermesFormat()
TEXT = st.text(max_size=30) | st.sampled_from(["</tool_call>", "<tool_call>", '"}', "\\", "<\\/tool_call>"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
CALLS = st.lists(st.tuples(TEXT, st.dictionaries(TEXT, JSON, max_size=3)), max_size=MAX_CALLS)
CONTENT = st.text(max_size=30).map(str.strip).filter(lambda text: "<tool_call>" not in text)


@settings(deadline=None, max_examples=25)
@given(CONTENT, CALLS)
def test_even_marks_in_names_and_keys_come_through(content: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    made = tuple(ToolCall(name=n, arguments=a, id=f"call_{i}") for i, (n, a) in enumerate(calls))
    message = Message(role="assistant", content=content, tool_calls=made)
    assert FORMAT.parse(FORMAT.render(message)) == message


def call_of(body: str) -> ToolCall:
    message = FORMAT.parse(f"<tool_call>{body}</tool_call>")
    assert message.content == ""
    (call,) = message.tool_calls
    return call


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"name":"t","arguments":{"a":' + "[" * 40 + "]" * 40 + "}}", "nested deeper than 32"),
        ('{"name":"t","arguments":{"a":"\\ud800"}}', "not valid JSON"),
        ('{"name":"t","arguments":{"a":NaN}}', "not valid JSON"),
        ('{"name":"t","arguments":{"a":1e999}}', "not valid JSON"),
        ('{"name":"t","arguments":{"a":' + "9" * 5000 + "}}", "not valid JSON"),
        ("[]", 'needs a "name"'),
        ('{"arguments":{}}', 'needs a "name"'),
        ('{"name":1}', 'needs a "name"'),
        ('{"name":"t","arguments":[1]}', "must be an object"),
        ('{"name":"t","arguments":null}', "must be an object"),
    ],
)
def test_a_call_that_cannot_be_read_says_why(body: str, reason: str) -> None:
    call = call_of(body)
    assert call.error is not None
    assert reason in call.error
    assert len(call.error) < 200


def test_a_call_without_arguments_has_none() -> None:
    assert call_of('{"name": "t"}') == ToolCall(name="t", id="call_0")


def test_a_missing_closing_tag_ends_with_the_text() -> None:
    message = FORMAT.parse('on it <tool_call>\n{"name": "t", "arguments": {"a": 1}}\n')
    assert message.content == "on it"
    assert message.tool_calls == (ToolCall(name="t", arguments={"a": 1}, id="call_0"),)


def test_text_around_the_calls_is_the_content() -> None:
    message = FORMAT.parse('one <tool_call>{"name":"a"}</tool_call> two <tool_call>{"name":"b"}</tool_call> three')
    assert [c.name for c in message.tool_calls] == ["a", "b"]
    assert re.sub(r"\s+", " ", message.content) == "one two three"


def test_calls_beyond_the_limit_are_answered_with_the_reason() -> None:
    message = FORMAT.parse('<tool_call>{"name":"t"}</tool_call>' * 20)
    *run, last = message.tool_calls
    assert [c.error for c in run] == [None] * MAX_CALLS
    assert last.error == "at most 16 tool calls per message are run; 4 more were dropped"
    assert len({c.id for c in message.tool_calls}) == MAX_CALLS + 1


@pytest.mark.parametrize("piece", ["<tool_call>", "<tool_call>{", "</tool_call>", '<tool_call>{"name":"t"}'])
def test_long_hostile_text_takes_little_time(piece: str) -> None:
    """Ten times as much takes ten times as long; a quadratic parser would need a hundred times."""

    def seconds(characters: int) -> float:
        text = piece * (characters // len(piece))
        costs = []
        for _ in range(3):
            started = time.process_time()
            FORMAT.parse(text)
            costs.append(time.process_time() - started)
        return min(costs)

    assert seconds(1_000_000) < 40 * seconds(100_000) + 0.05


@settings(deadline=None, max_examples=25)
@given(JSON)
def test_parse_json_reads_what_json_writes(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@settings(deadline=None, max_examples=25)
@given(JSON)
def test_make_call_never_raises(body: Any) -> None:
    call = make_call(body, "id")
    assert call.id == "id"
    assert (call.error is None) == (
        isinstance(body, dict)
        and isinstance(body.get("name"), str)
        and isinstance(body.get("arguments", {}), dict)
    )
