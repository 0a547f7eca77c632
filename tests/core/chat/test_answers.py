"""What a model said is read in every form that servers give it; what is not decided is no answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from envgym.chat.answers import ChatAnswer, read_answer, read_error
from envgym.web.service import Answer, Refusal, Undecided

SENT = {"messages": [], "max_tokens": 10}


def read(body: Any, sent: dict[str, Any] = SENT) -> ChatAnswer:
    return read_answer(Answer(status=200, text=body if isinstance(body, str) else json.dumps(body)), sent)


def choice(content: Any, reason: Any = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"finish_reason": reason, "message": {"content": content, **message}}]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("7", "7"),
        ("", ""),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "output_text", "text": "a"}], "a"),
        (["a", {"type": "text", "text": "b"}], "ab"),
        ([{"type": "refusal", "refusal": "I will not"}], "I will not"),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "b"}], "b"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}], ""),
        ([{"type": "reference", "ids": [1]}, {"type": "text", "text": "b"}, None, 5], "b"),
        ("a\ud800", "a?"),
    ],
)
def test_content_is_text_or_parts(content: Any, text: str) -> None:
    assert read(choice(content)).text == text


@pytest.mark.parametrize(
    ("message", "thought", "echo"),
    [
        ({"reasoning_content": "hm"}, "hm", {"reasoning_content"}),
        ({"reasoning": "hm"}, "hm", {"reasoning"}),
        ({"reasoning": "hm", "reasoning_details": [{"type": "x", "text": "hm", "signature": "s"}]}, "hm", None),
        ({"reasoning_details": [{"text": "h"}, {"summary": "m"}]}, "hm", {"reasoning_details"}),
        ({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "7"}]}, "hm", {"content"}),
        ({"reasoning_content": None}, "", set()),
    ],
)
def test_thoughts_are_kept_apart_and_go_back_as_they_came(
    message: dict[str, Any], thought: str, echo: set[str] | None
) -> None:
    body = choice("7")
    body["choices"][0]["message"].update(message)
    answer = read(body)
    assert (answer.text, answer.reasoning) == ("7", thought)
    assert set(answer.echo) == (set(message) if echo is None else echo)
    assert all(value == message[name] for name, value in answer.echo.items())


@pytest.mark.parametrize("reason", ["stop", "eos", "eos_token", "end_turn", "stop_sequence", "STOP", "tool_calls"])
def test_what_ended_is_decided(reason: str) -> None:
    assert read(choice("7", reason)) == ChatAnswer(text="7")


@pytest.mark.parametrize(
    "reason", ["error", "content_filter", None, "abort", "cancelled", "unknown", 3, {}, "SAFETY"]
)
@pytest.mark.parametrize("content", ["7", "", None])
def test_what_broke_off_is_not(reason: Any, content: Any) -> None:
    with pytest.raises(Undecided, match="finish_reason"):
        read(choice(content, reason))


def test_a_server_that_tells_no_reason_is_believed_where_it_says_something() -> None:
    body = choice("7")
    del body["choices"][0]["finish_reason"]
    assert read(body).text == "7"
    body["choices"][0]["message"]["content"] = ""
    with pytest.raises(Undecided):
        read(body)
    with pytest.raises(Undecided):
        read(choice(None, "tool_calls", tool_calls=[]))


@pytest.mark.parametrize(
    ("reason", "written", "cut_by"),
    [
        ("length", 10, "tokens"),
        ("length", None, "tokens"),
        ("length", 4, "context"),
        ("max_tokens", 10, "tokens"),
        ("MAX_TOKENS", 10, "tokens"),
        ("model_context_window_exceeded", 3, "context"),
        ("stop", 10, None),
    ],
)
def test_a_limit_that_cut_the_answer_is_named(reason: str, written: int | None, cut_by: str | None) -> None:
    body = {**choice("7", reason), "usage": {"completion_tokens": written}}
    assert read(body).cut_by == cut_by


def test_calls_come_in_two_forms() -> None:
    call = {"function": {"name": "f", "arguments": "{}"}}
    assert read(choice(None, "tool_calls", tool_calls=[call, None])).calls == (call, None)
    assert read(choice(None, "function_call", function_call=call["function"])).calls == (call,)


@pytest.mark.parametrize(
    "body",
    [
        "not JSON",
        "[]",
        "5",
        "null",
        {},
        {"choices": None},
        {"choices": []},
        {"choices": {}},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"message": "7"}]},
        {"choices": [{"message": {"content": "7"}, "error": {"message": "upstream"}}]},
        choice(5),
        choice({}),
        choice([{"type": "image_url"}]),
        "[" * 100_000,
        "1" * 10_000,
    ],
)
def test_what_is_no_completion_is_no_answer(body: Any) -> None:
    with pytest.raises(Undecided):
        read(body)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"message": "x", "code": 529}}, 529),
        ({"error": {"message": "x", "code": "400"}}, 400),
        ({"error": {"message": "x", "code": "overloaded"}}, 500),
        ({"error": {"message": "x", "code": 7}}, 500),
        ({"error": "x"}, 500),
        ({"object": "error", "message": "x", "code": 404}, 404),
        ({"error": None, "choices": [1]}, 200),
        ({"error": {}, "choices": [1]}, 200),
        ([{"error": "x"}], 200),
    ],
)
def test_an_error_with_a_200_is_an_error(body: Any, status: int) -> None:
    answer = read_error(Answer(status=200, text=json.dumps(body), wait=3.0))
    assert (answer.status, answer.wait) == (status, 3.0)
    if status != 200:
        with pytest.raises(Undecided if status >= 500 else Refusal):
            answer.check()
