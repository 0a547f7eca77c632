"""The contract of tool formats. Needs pytest and hypothesis."""

from __future__ import annotations

import string

import hypothesis
from hypothesis import strategies as st

from envgym.chat.tool_formats import MAX_CALLS, ToolFormat
from envgym.records import Message, ToolCall, ToolSpec, from_json, to_json

__all__ = ["ToolFormatContract"]

_HOSTILE = (
    "<tool_call>",
    "</tool_call>",
    "<|python_tag|>",
    "</function>",
    "```",
    "```json",
    "[TOOL_CALLS]",
    '"}}',
    "}",
    "{",
    "]",
    "\\",
    "<\\/tool_call>",
    "\n",
    '{"name": "x", "arguments": {}}',
)
"""Marks of many formats; a call whose arguments contain them must survive."""
_JUNK = ('{"name":', '"arguments":', "[", "NaN", "1e999", '"\\ud800"', "name", "null", "{" * 50, "9" * 5000)

_TEXT = st.text(max_size=20) | st.lists(st.sampled_from(_HOSTILE) | st.text(max_size=3), max_size=4).map("".join)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
_CALLS = st.lists(st.tuples(_NAMES, st.dictionaries(_NAMES, _VALUES, max_size=3)), max_size=3)
_CONTENT = st.text(string.ascii_letters + string.digits + " ,.!?", max_size=30).map(str.strip)
_GARBAGE = st.text() | st.lists(st.sampled_from(_HOSTILE + _JUNK) | st.text(max_size=5), max_size=20).map("".join)

# Subclasses share the tests that hypothesis wraps, and a busy machine says nothing about a format.
_settings = hypothesis.settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[hypothesis.HealthCheck.differing_executors, hypothesis.HealthCheck.too_slow],
)


class ToolFormatContract:
    """Test that a tool format parses its own rendering, survives any text, and describes its tools::

    class TestMine(ToolFormatContract):
        def tool_format(self) -> ToolFormat:
            return MyFormat()
    """

    def tool_format(self) -> ToolFormat:
        """Make the format to test."""
        raise NotImplementedError("override tool_format() to return the format that is to be tested")

    @_settings
    @hypothesis.given(_CONTENT, _CALLS)
    def test_parsing_inverts_rendering(self, content: str, calls: list[tuple[str, dict[str, object]]]) -> None:
        """Get names and arguments back unchanged, whatever marks they hold, and a distinct id for each call."""
        made = tuple(ToolCall(name=name, arguments=arguments) for name, arguments in calls)  # type: ignore[arg-type]
        tool_format = self.tool_format()
        found = tool_format.parse(tool_format.render(Message(role="assistant", content=content, tool_calls=made)))
        assert found.content == content
        assert [(c.name, c.arguments, c.error) for c in found.tool_calls] == [(n, a, None) for n, a in calls]
        assert len({c.id for c in found.tool_calls}) == len(calls)

    @_settings
    @hypothesis.given(_GARBAGE)
    def test_parsing_never_raises_and_its_message_can_be_stored(self, text: str) -> None:
        """Parse anything that a policy may write; calls are capped."""
        message = self.tool_format().parse(text)
        assert message.role == "assistant"
        assert len(message.tool_calls) <= MAX_CALLS + 1, "calls beyond MAX_CALLS are answered by one error"
        assert from_json(Message, to_json(message)) == message

    @_settings
    @hypothesis.given(_GARBAGE, _NAMES)
    def test_parsing_survives_a_call_cut_short(self, tail: str, name: str) -> None:
        """Parse completions that a token limit cut anywhere in a call, with anything behind."""
        tool_format = self.tool_format()
        call = ToolCall(name=name, arguments={"text": "some words"})
        text = tool_format.render(Message(role="assistant", content="", tool_calls=(call,)))
        for end in range(0, len(text), 5):
            message = tool_format.parse(text[:end] + tail)
            assert from_json(Message, to_json(message)) == message

    @_settings
    @hypothesis.given(st.lists(_NAMES, min_size=1, max_size=3, unique=True))
    def test_every_tool_is_described(self, names: list[str]) -> None:
        """Name every tool and every parameter in the prompt."""
        tools = [
            ToolSpec(name=n, description=f"Do {n}.", parameters={"properties": {f"{n}_input": {}}}) for n in names
        ]
        text = self.tool_format().describe(tools)
        for name in names:
            assert name in text
            assert f"{name}_input" in text
