"""Servers as they are: what they do not take, how they tell thoughts, which ids they give, what is an outage."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from envgym.env.chat_env import ChatEnv
from envgym.env.tools import tool
from envgym.policies.openai import HttpPolicy
from envgym.records import Message, Score, Split, Task, Trajectory, from_json, to_json
from envgym.rollout.episode import rollout

CALL = '<tool_call>{"name": "depth", "arguments": {"lake": "Baikal"}}</tool_call>'


class Lakes(ChatEnv):
    """Look the depth of a lake up, then say it."""

    def tasks(self, split: Split) -> Sequence[Task]:
        asked = Message(role="system", content="Be brief."), Message(role="user", content="How deep is Baikal?")
        return [Task(id="t", split=split, messages=asked, reference="1642")]

    @tool
    def depth(self, lake: str) -> int:
        """Depth of a lake in metres."""
        return 1642

    def score(self, trajectory: Trajectory) -> Score:
        right = float("1642" in trajectory.final_text)
        return Score(value=right, accuracy=right)


def says(content: Any, reason: Any = "stop", **message: Any) -> dict[str, Any]:
    return {
        "choices": [{"finish_reason": reason, "message": {"role": "assistant", "content": content, **message}}]
    }


def calls(call_id: Any = "c", **message: Any) -> dict[str, Any]:
    function = {"name": "depth", "arguments": '{"lake": "Baikal"}'}
    call = {"id": call_id, "type": "function", "function": function}
    return says(message.pop("content", None), "tool_calls", tool_calls=[call], **message)


def asked_before(body: dict[str, Any]) -> int:
    return sum(m["role"] == "assistant" for m in body["messages"])


Answer = Callable[[dict[str, Any]], Any]


@pytest.fixture
def play(web_server: Any) -> Callable[..., Trajectory]:
    """``play(answer, settings)``: one episode; ``answer(body)`` gives a completion or ``(status, body)``."""

    def run(answer: Answer, episodes: int = 1, **settings: Any) -> Trajectory:
        def reply(body: dict[str, Any], n: int) -> bytes:
            said = answer(body)
            status, content = said if isinstance(said, tuple) else (200, said)
            return bytes(web_server.reply(content, status))

        web_server.answer = reply
        policy = HttpPolicy(**{"url": web_server.url, "model": "m", "pause": 0.01, "max_tokens": 64, **settings})

        async def go() -> Trajectory:
            for _ in range(episodes):
                env = Lakes()
                trajectory = await rollout(env, policy, env.task_list("train")[0], name="lakes", seed=1)
            await policy.close()
            return trajectory

        return asyncio.run(go())

    return run


def strictly(*fields: str) -> Answer:
    """A server that refuses these fields one at a time."""

    def answer(body: dict[str, Any]) -> Any:
        for field in fields:
            if field in body:
                return 400, {"error": {"message": f"Unsupported parameter: '{field}' is not supported"}}
        return says("1642 m") if asked_before(body) else calls()

    return answer


def test_fields_that_are_refused_are_left_out_from_then_on_and_said_once(
    play: Any, web_server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert play(strictly("seed", "temperature", "max_tokens"), episodes=3).reward == 1
    assert len(web_server.bodies) == 3 + 3 * 2
    assert all(body["max_completion_tokens"] == 64 for body in web_server.bodies[3:])
    said = [record.message for record in caplog.records]
    assert len(said) == 3
    assert "seed: it is left out, and draws cannot be repeated" in said[0]


def test_fields_that_are_named_beforehand_are_never_sent(play: Any, web_server: Any) -> None:
    assert play(strictly("seed", "top_k"), omit=["seed"], extra={"top_p": 0.5}).reward == 1
    assert all("seed" not in body and body["top_p"] == 0.5 for body in web_server.bodies)


def test_a_server_that_takes_no_limit_of_tokens_is_not_asked_without(play: Any) -> None:
    outcome = play(strictly("max_tokens", "max_completion_tokens")).outcome
    assert outcome.kind == "failed"
    assert "max_completion_tokens" in outcome.reason


def test_a_value_that_is_refused_is_the_users_to_change(play: Any, web_server: Any) -> None:
    outcome = play(lambda body: (400, {"error": "temperature must be between 0 and 1"}), temperature=2.0).outcome
    assert "temperature must be between 0 and 1" in outcome.reason
    assert len(web_server.bodies) == 1


@pytest.mark.parametrize(
    "words",
    [
        "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
        "Tool message must follow an assistant message with tool calls",
        "tool_call_id c not found in 'tool_calls' of previous message",
        "unexpected tool result: no matching tool call before it",
    ],
)
def test_calls_in_the_text_go_back_as_fields_where_the_server_wants_them(
    play: Any, web_server: Any, words: str
) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if not asked_before(body):
            return says(CALL)
        fields = body["messages"][2].get("tool_calls")
        return says("1642 m") if fields else (400, {"error": {"message": words}})

    assert play(answer, episodes=2).reward == 1
    assert len(web_server.bodies) == 3 + 2
    history = web_server.bodies[-1]["messages"][2:]
    assert [m["role"] for m in history] == ["assistant", "tool"]
    assert "tool_call" not in history[0]["content"]
    assert history[0]["tool_calls"][0]["id"] == history[1]["tool_call_id"]


@pytest.mark.parametrize("settings", [{}, {"tools": "prompt"}])
def test_tools_are_told_in_the_prompt_where_the_server_has_no_parser(
    play: Any, web_server: Any, settings: Any
) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if "tools" in body:
            return 400, {"error": "m does not support tools"}
        told = "depth" in body["messages"][0]["content"] and body["messages"][0]["content"].startswith("Be brief.")
        return says("1642 m" if asked_before(body) and told else CALL)

    trajectory = play(answer, **settings)
    assert (trajectory.reward, len(trajectory.turns)) == (1, 2)
    assert len(web_server.bodies) == (2 if settings else 3)
    roles = [m["role"] for m in web_server.bodies[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert web_server.bodies[-1]["messages"][2] == {"role": "assistant", "content": CALL}
    assert "1642" in web_server.bodies[-1]["messages"][3]["content"]


@pytest.mark.parametrize("status", [400, 500])
def test_a_template_that_wants_turns_gets_turns(play: Any, web_server: Any, status: int) -> None:
    def answer(body: dict[str, Any]) -> Any:
        roles = [m["role"] for m in body["messages"]]
        if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
            message = "Jinja Exception: Conversation roles must alternate user/assistant/user/assistant/..."
            return status, {"error": {"message": message}}
        return says("1642 m") if len(roles) > 1 else says(CALL)

    assert play(answer).reward == 1
    assert "Be brief." in web_server.bodies[-1]["messages"][0]["content"]
    assert "tools" not in web_server.bodies[-1]


def test_a_template_without_a_system_role_gets_its_text_from_the_user(play: Any, web_server: Any) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if body["messages"][0]["role"] == "system":
            return 400, {"error": {"message": "System role not supported"}}
        return says("1642 m") if asked_before(body) else calls()

    assert play(answer).reward == 1
    assert web_server.bodies[-1]["messages"][0]["content"] == "Be brief.\n\nHow deep is Baikal?"
    assert web_server.bodies[-1]["messages"][2]["role"] == "tool"


@pytest.mark.parametrize(
    "thoughts",
    [
        {"reasoning_content": "It says 99."},
        {"reasoning": "It says 99."},
        {"reasoning_details": [{"type": "t", "text": "It says 99.", "signature": "abc"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "It says 99."}]}]},
    ],
)
def test_thoughts_go_back_as_they_came_and_are_no_answer(play: Any, web_server: Any, thoughts: Any) -> None:
    def answer(body: dict[str, Any]) -> Any:
        return says("1642 m") if asked_before(body) else calls(**thoughts)

    trajectory = play(answer)
    assert trajectory.turns[0].action.reasoning == "It says 99."
    assert trajectory.turns[0].action.content == ""
    sent = web_server.bodies[-1]["messages"][2]
    assert all(sent[name] == value for name, value in thoughts.items())
    assert from_json(Trajectory, to_json(trajectory)) == trajectory


def test_thoughts_alone_are_an_empty_answer(play: Any) -> None:
    trajectory = play(lambda body: says(None, reasoning_content="Surely 1642."))
    assert (trajectory.outcome.kind, trajectory.final_text, trajectory.reward) == ("completed", "", 0)


def test_thoughts_that_the_server_does_not_take_back_are_left_out(play: Any, web_server: Any) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if any("reasoning" in m for m in body["messages"]):
            return 400, {"error": {"message": "'messages.2' : property 'reasoning' is unsupported"}}
        return says("1642 m") if asked_before(body) else calls(reasoning="hm")

    assert play(answer).reward == 1


@pytest.mark.parametrize("call_id", ["call_0", "", None, 7, "x" * 1000, "\u00e9", "\n"])
def test_every_call_of_a_conversation_has_an_id_of_its_own(play: Any, web_server: Any, call_id: Any) -> None:
    trajectory = play(lambda body: says("1642 m") if asked_before(body) == 3 else calls(call_id))
    ids = [call.id for turn in trajectory.turns for call in turn.action.tool_calls]
    assert len(set(ids)) == len(ids) == 3
    answered = [m["tool_call_id"] for m in web_server.bodies[-1]["messages"] if m["role"] == "tool"]
    assert answered == ids


@pytest.mark.parametrize("reason", ["error", "content_filter", "abort", None])
def test_what_broke_off_is_asked_again_and_never_scored(play: Any, web_server: Any, reason: Any) -> None:
    trajectory = play(lambda body: says("1642 m", reason) if len(web_server.bodies) < 3 else says("1642"))
    assert (trajectory.reward, len(web_server.bodies)) == (1, 3)
    web_server.bodies.clear()
    trajectory = play(lambda body: says("1642 m", reason))
    assert trajectory.failed
    assert "finish_reason" in trajectory.outcome.reason


@pytest.mark.parametrize(
    ("body", "ending"),
    [
        ({"error": {"message": "prompt is too long: 9 tokens > 8 maximum", "code": 400}}, "truncated: context"),
        ({"error": {"message": "upstream", "code": 502}}, "failed: PolicyError"),
        ({"object": "error", "message": "overloaded", "code": 529}, "failed: PolicyError"),
        ({"error": "no"}, "failed: PolicyError"),
    ],
)
def test_an_error_with_a_200_is_what_it_says(play: Any, body: Any, ending: str) -> None:
    assert play(lambda _: body).ending == ending


def test_an_answer_that_filled_the_context_says_so(play: Any) -> None:
    cut = {**says("Lake Bai", "length"), "usage": {"completion_tokens": 5}}
    assert play(lambda body: cut).ending == "truncated: context"
    assert play(lambda body: {**cut, "usage": {"completion_tokens": 64}}).ending == "truncated: tokens"


@pytest.mark.parametrize(("status", "words"), [(401, "ENVGYM_API_KEY"), (403, "ENVGYM_API_KEY"), (404, "/v1")])
def test_a_refusal_says_what_to_do(play: Any, web_server: Any, status: int, words: str) -> None:
    outcome = play(lambda body: (status, {"error": {"message": "no"}})).outcome
    assert outcome.reason.startswith("PolicyError: no completion from http://127.0.0.1")
    assert words in outcome.reason
    assert len(web_server.bodies) == 1


def test_tools_in_prose_that_a_transient_error_mentions_teach_nothing(play: Any, web_server: Any) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if len(web_server.bodies) == 1:
            return 503, {"error": "tool calls are not available at the moment, seed is unsupported"}
        return says("1642 m") if asked_before(body) else calls()

    assert play(answer).reward == 1
    assert all("tools" in body and "seed" in body for body in web_server.bodies)
