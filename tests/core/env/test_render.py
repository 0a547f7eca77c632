"""A rendered conversation shows every message, and controls no terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from envgym.env.render import conversation_text
from envgym.records import Message, ToolCall

TEXTS = st.text("aé文[]\x00\x1b\x07\x7f\x9b\u202e\u2066\u200b\ufeff\ud800\r\b\t\n", max_size=12)


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), TEXTS, TEXTS), max_size=5))
def test_no_text_of_a_message_or_a_call_controls_a_terminal(spoken: list[tuple[str, str, str]]) -> None:
    messages = []
    for role, text, name in spoken:
        call = ToolCall(name=name, arguments={name: text}, id="1")
        messages.append(Message(role=role, content=text, tool_calls=(call,)))  # type: ignore[arg-type]
    shown = conversation_text(messages)
    assert not {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs")} - {"\n", "\t"}
    assert sum(line in ("[system]", "[user]", "[assistant]", "[tool]") for line in shown.split("\n")) >= len(
        spoken
    )


def test_calls_faults_and_cuts_are_shown() -> None:
    good = ToolCall(name="add", arguments={"a": 1, "ü": "é"})
    bad = ToolCall(name="add", error="not JSON")
    text = conversation_text([Message(role="assistant", content="so", tool_calls=(good, bad), cut=True)])
    assert text == '[assistant] (cut)\nso\n-> add {"a": 1, "ü": "é"}\n-> add not JSON'
