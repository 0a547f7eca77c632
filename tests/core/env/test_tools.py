"""A model may write any call: it gets an answer. A tool may do anything: the episode knows."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from toys import ManyTools

from envgym.env.tools import Tool, collect_tools, run_calls, tool
from envgym.errors import EnvgymError, ToolError, UserError
from envgym.records import Message, ToolCall

TYPED = {"typed": ManyTools().tools["typed"]}


@pytest.fixture(scope="module")
def tools() -> dict[str, Tool]:
    return ManyTools().tools


def call(tool_name: str, /, **arguments: Any) -> ToolCall:
    return ToolCall(name=tool_name, arguments=arguments, id=f"id of {tool_name}")


async def answer(tools: dict[str, Tool], *calls: ToolCall) -> list[str]:
    messages, _ = await run_calls(tools, calls)
    return [m.content for m in messages]


def test_the_schema_comes_from_the_signature(tools: dict[str, Tool]) -> None:
    spec = tools["typed"].spec
    assert (spec.name, spec.description) == ("typed", "Say what came.")
    assert spec.parameters == {
        "type": "object",
        "additionalProperties": False,
        "required": ["text"],
        "properties": {
            "text": {"type": "string"},
            "mode": {"enum": ["up", "down"], "type": "string", "default": "up"},
            "numbers": {
                "anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}],
                "default": None,
            },
            "share": {"type": "number", "minimum": 0, "maximum": 1, "description": "how much", "default": 0.5},
            "schema": {"type": "string", "default": ""},
            "copy": {"type": "boolean", "default": False},
        },
    }


async def test_arguments_arrive_with_their_defaults(tools: dict[str, Tool]) -> None:
    given = {"text": "é", "numbers": [1, 2], "schema": "s", "copy": True}
    (text,) = await answer(tools, call("typed", **given))
    assert json.loads(text) == {"mode": "up", "share": 0.5, **given}
    assert "é" in text


def test_tools_are_in_the_order_of_their_definition_and_may_be_overridden() -> None:
    class Child(ManyTools):
        @tool
        def shout(self, times: int, mark: str) -> str:
            """Shout again."""
            return mark * times

        def refuse(self, text: str) -> str:
            """No tool any more."""
            return text

        @tool
        def last(self) -> str:
            """Last."""
            return ""

    found = collect_tools(Child())
    expected = [n for n in ManyTools().tools if n != "refuse"]
    assert list(found) == [*expected, "last"]
    assert found["shout"].spec.description == "Shout again."


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("def t(self, x) -> str: ...", "'x' needs a type annotation"),
        ("def t(self, *x: int) -> str: ...", "'x' must be passed by name"),
        ("def t(self, **x: int) -> str: ...", "'x' must be passed by name"),
        ("def t(self, x: int, /) -> str: ...", "'x' must be passed by name"),
    ],
)
def test_a_signature_without_a_schema_is_refused(definition: str, words: str) -> None:
    scope: dict[str, Any] = {"tool": tool}
    exec(f"class Bad:\n    @tool\n    {definition}", scope)  # noqa: S102
    with pytest.raises(TypeError, match=words.replace("*", "")):
        collect_tools(scope["Bad"]())


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (ToolCall(name="", error="not JSON"), "error: not JSON"),
        (call("typo"), "error: no tool 'typo'; there are: typed, shout"),
        (call("x" * 10_000), "error: no tool 'xxx"),
    ],
)
async def test_a_call_that_cannot_be_run_is_answered_and_counted(
    tools: dict[str, Tool], bad: ToolCall, words: str
) -> None:
    (message,), counts = await run_calls(tools, [bad])
    assert message.content.startswith(words)
    assert len(message.content) < 1000
    assert counts == {"tool_calls": 1, "tool_malformed": 1, "tool_errors": 0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "text: Field required. Expected: text, mode, numbers, share, schema, copy"),
        ({"text": 1}, "text: Input should be a valid string"),
        ({"text": "", "mode": "sideways"}, "mode: Input should be 'up' or 'down'"),
        ({"text": "", "numbers": [1, "x"]}, "numbers.1: Input should be a valid integer"),
        ({"text": "", "share": 2}, "share: Input should be less than or equal to 1"),
        ({"text": "", "self": 1}, "self: Extra inputs are not permitted"),
    ],
)
async def test_ill_typed_arguments_are_explained(
    tools: dict[str, Tool], arguments: dict[str, Any], words: str
) -> None:
    (message,), counts = await run_calls(tools, [call("typed", **arguments)])
    assert message.content.startswith("error: wrong arguments: ")
    assert words in message.content
    assert counts["tool_errors"] == 1


@settings(deadline=None, max_examples=25)
@given(
    arguments=st.dictionaries(
        st.text(max_size=8) | st.sampled_from(list(TYPED["typed"].spec.parameters["properties"])),
        st.none() | st.integers() | st.text(max_size=50) | st.lists(st.text(max_size=50), max_size=5),
    )
)
@example(arguments={"text": "é"})
@example(arguments={"text": "", "numbers": [], "share": 1})
def test_any_arguments_are_used_or_refused_in_words(arguments: dict[str, Any]) -> None:
    (text,) = asyncio.run(answer(TYPED, ToolCall(name="typed", arguments=arguments)))
    assert text.startswith("error: wrong arguments: ") or json.loads(text)["text"] == arguments["text"]


async def test_results_and_refusals_are_cut_visibly(tools: dict[str, Tool]) -> None:
    """Head and tail stay; the middle says how much is gone. A hostile argument cannot blow up a refusal."""
    long, fits, refused, named = await answer(
        tools,
        call("shout", times=1000),
        call("shout", times=100),
        call("refuse", text="x" * 1000),
        call("typed", **{"k" * 100_000: 1}),
    )
    assert long == "é" * 66 + "\n[... 900 characters cut ...]\n" + "é" * 34
    assert fits == "é" * 100
    assert refused.startswith("error: not xx")
    assert "characters cut" in refused
    assert len(named) < 5000


async def test_what_cannot_be_stored_is_replaced(tools: dict[str, Tool]) -> None:
    assert await answer(tools, call("half")) == ["a?b"]


async def test_calls_run_side_by_side_and_are_answered_in_order(tools: dict[str, Tool]) -> None:
    ManyTools.log.clear()
    messages, counts = await run_calls(
        tools, [call("beside", name="a", seconds=0.05), call("typo"), call("beside", name="b", seconds=0.0)]
    )
    assert [m.content for m in messages][::2] == ["a", "b"]
    assert [m.tool_call_id for m in messages] == ["id of beside", "id of typo", "id of beside"]
    assert ManyTools.log == ["+a", "+b", "-b", "-a"]
    assert counts == {"tool_calls": 3, "tool_malformed": 1, "tool_errors": 0}


@pytest.mark.parametrize("names", list(itertools.product(["alone", "beside"], repeat=3)))
async def test_a_tool_that_must_run_alone_never_overlaps(tools: dict[str, Tool], names: tuple[str, ...]) -> None:
    ManyTools.log.clear()
    await answer(tools, *(call(n, name=f"{n}{i}", seconds=0.001) for i, n in enumerate(names)))
    for i, name in enumerate(names):
        if name == "alone":
            begun = ManyTools.log.index(f"+alone{i}")
            assert ManyTools.log[begun + 1] == f"-alone{i}"
            assert {entry[-1] for entry in ManyTools.log[:begun]} == {str(n) for n in range(i)}


async def test_a_tool_that_never_returns_times_out(tools: dict[str, Tool]) -> None:
    started = time.monotonic()
    assert await answer(tools, call("hang")) == ["error: timed out after 0.2 s"]
    assert time.monotonic() - started < 5


def test_a_hanging_tool_does_not_keep_the_process_from_ending() -> None:
    """The thread of a plain function outlives its call; it must not outlive the program."""
    program = (
        "import asyncio; from toys import ManyTools; from envgym.records import ToolCall\n"
        "from envgym.env.tools import run_calls\n"
        "print(asyncio.run(run_calls(ManyTools().tools, [ToolCall(name='hang')]))[0][0].content)"
    )
    path = os.pathsep.join([str(Path(__file__).parent / "plugins"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "error: timed out after 0.2 s\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("leave", "tool 'leave' raised SystemExit"),
        ("run_dry", "StopIteration"),
        ("time_out", "tool 'time_out' raised TimeoutError: the database"),
        ("tangled", "tool 'tangled' raised ValueError"),
    ],
)
async def test_a_broken_tool_is_a_tool_error(tools: dict[str, Tool], name: str, words: str) -> None:
    """At once, and neither a time-out nor the end of the event loop."""
    started = time.monotonic()
    with pytest.raises(ToolError, match=words):
        await answer(tools, call(name))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("error", [UserError("x"), ToolError("x")])
async def test_typed_errors_of_a_tool_pass_unchanged(error: EnvgymError) -> None:
    class Failing:
        @tool
        def fail(self) -> str:
            """Fail."""
            raise error

    with pytest.raises(type(error)) as caught:
        await answer(collect_tools(Failing()), call("fail"))
    assert caught.value is error


async def test_a_broken_tool_leaves_no_other_call_running(tools: dict[str, Tool]) -> None:
    ManyTools.log.clear()
    with pytest.raises(ToolError):
        await answer(tools, call("beside", name="a", seconds=3600), call("time_out"))
    assert ManyTools.log == ["+a"]
    assert len(asyncio.all_tasks()) == 1


async def test_cancellation_waits_until_the_tools_have_cleaned_up() -> None:
    cleaned: list[str] = []

    class Slow:
        @tool
        async def slow(self) -> str:
            """Be slow, also in tidying up."""
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.02)
                cleaned.append("slow")
            return ""

    running = asyncio.ensure_future(answer(collect_tools(Slow()), call("slow"), call("slow")))
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cleaned == ["slow", "slow"]


async def test_no_calls_make_no_messages(tools: dict[str, Tool]) -> None:
    messages, counts = await run_calls(tools, [])
    assert messages == ()
    assert counts["tool_calls"] == 0
    assert isinstance(messages, tuple)
    assert all(isinstance(m, Message) for m in messages)
