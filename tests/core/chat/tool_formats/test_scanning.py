"""Marks in thoughts, in code and in prose are no calls, and what is one is found wherever it stands."""

from __future__ import annotations

import time

import pytest

from envgym.chat.tool_formats import HermesFormat, tool_formats

_CALL = '<tool_call>{"name": "look", "arguments": {"at": "map"}}</tool_call>'
_TICKED = '<tool_call>{"name": "sh", "arguments": {"line": "echo `date` ``x``"}}</tool_call>'
_FENCED = '<tool_call>{"name": "save", "arguments": {"text": "# Title\n```\ncode\n```\n"}}</tool_call>'


def _names(text: str) -> list[str]:
    return [call.name for call in HermesFormat().parse(text).tool_calls]


@pytest.mark.parametrize(
    "text",
    [
        f"<think>I could write {_CALL}.</think>It is noon.",
        f"I could write {_CALL}.\n</think>\n\nIt is noon.",  # the prompt began the thought
        f"<think>I could write {_CALL}",
        f"<thinking>{_CALL}</thinking>no",
        f"[THINK]{_CALL}[/THINK]no",
        f"Calls look like `{_CALL}`.",
        f"Calls look like\n```\n{_CALL}\n```\nand no other way.",
        f"```xml\n{_CALL}\n```",
        "The tag <tool_call> opens a call, and </tool_call> closes it.",
        "Use `<tool_call>` for calls.",
        "A <tool_call>name</tool_call> is not what it wants.",
        f"<think>first {_CALL}</think> then <think>second {_CALL}</think> no",
    ],
)
def test_what_is_thought_quoted_or_explained_is_no_call(text: str) -> None:
    """The whole text is the content."""
    message = HermesFormat().parse(text)
    assert message.tool_calls == ()
    assert message.content == text.strip()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"<think>A plan.</think>{_CALL}", ["look"]),
        (f"A plan.</think>\n{_CALL}", ["look"]),
        (f"<think>draft {_CALL}</think>{_TICKED}", ["sh"]),
        (f"draft {_CALL}</think>{_TICKED}", ["sh"]),
        (f"Run `ls`, then {_TICKED}", ["sh"]),
        (f"The ` key. {_TICKED}", ["sh"]),
        (f"```\nls\n```\n{_CALL}", ["look"]),
        (f"```\nnever closed {_CALL}", ["look"]),
        (_FENCED, ["save"]),
        (f"{_FENCED}{_CALL}", ["save", "look"]),
        (f"I mention <think> and call {_CALL}", ["look"]),
        (f"I mention `</think>`. {_CALL}", ["look"]),
        (_CALL.replace("map", "</think>"), ["look"]),
        (_CALL.replace("map", "<think>") + _TICKED, ["look", "sh"]),
        (_CALL.replace("map", "```") + "\n" + _CALL.replace("map", "```"), ["look", "look"]),
    ],
)
def test_marks_of_thoughts_and_code_do_not_hide_a_call(text: str, names: list[str]) -> None:
    assert _names(text) == names


def test_a_thought_stays_in_the_content() -> None:
    """Verifiers know where it ends; nobody else may lose it."""
    message = HermesFormat().parse(f"<think>draft {_CALL}</think>Now: {_TICKED} done")
    assert message.content == f"<think>draft {_CALL}</think>Now:  done"


@pytest.mark.parametrize(
    "unit", ["<think>", "</think>", "` ", "```\n", "\n```x\n", "`<tool_call>{", "\\", '<think>"', "[/THINK]`\n"]
)
@pytest.mark.parametrize("name", ["hermes", "harmony"])
def test_a_megabyte_of_marks_takes_linear_time(name: str, unit: str) -> None:
    """Ten times as much takes about ten times as long; a quadratic scan would need a hundred times."""
    tool_format = tool_formats.make(name)

    def seconds(characters: int) -> float:
        text = unit * (characters // len(unit))
        started = time.process_time()
        tool_format.parse(text)
        return time.process_time() - started

    small = min(seconds(50_000) for _ in range(3))
    assert seconds(500_000) < 50 * small + 0.2
