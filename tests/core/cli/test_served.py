"""Settings of a policy behind a server, each given on the command line and seen in what the server is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from commands import Result

Sent = Callable[..., dict[str, Any]]

HERMES = '<tool_call>{"name": "calculate", "arguments": {"expression": "1+1"}}</tool_call>'
MISTRAL = '[TOOL_CALLS][{"name": "calculate", "arguments": {"expression": "1+1"}}]'


@pytest.fixture
def sent(run: Callable[..., Result], web_server: Any) -> Sent:
    """``sent("extra.top_p=0.9")``: the first request of an episode whose policy has these settings."""

    def ask(*settings: str, said: str = "ANSWER: 1") -> dict[str, Any]:
        web_server.bodies.clear()
        message = {"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": said}}]}
        web_server.answer = lambda body, n: web_server.reply(message)
        chosen = [word for setting in settings for word in ("--policy-set", setting)]
        done = run("rollout", "math_problems", "--policy", f"{web_server.url}#m", *chosen, "--json")
        assert done.code == 0, done.err
        return {**web_server.bodies[0], "episode": json.loads(done.out)}

    return ask


def test_temperature_and_limit(sent: Sent) -> None:
    plain = sent()
    assert (plain["temperature"], "max_tokens" in plain) == (1.0, False)
    other = sent("temperature=0.25", "max_tokens=77")
    assert (other["temperature"], other["max_tokens"]) == (0.25, 77)


def test_fields_are_left_out_and_added(sent: Sent) -> None:
    assert "seed" in sent()
    other = sent('omit=["seed"]', "extra.top_p=0.9")
    assert "seed" not in other
    assert other["top_p"] == 0.9


def test_tools_are_told_in_the_prompt(sent: Sent) -> None:
    assert "You may call tools" not in str(sent()["messages"])
    other = sent("tools=prompt")
    assert "tools" not in other
    assert "You may call tools" in str(other["messages"])


@pytest.mark.parametrize(("family", "said"), [("hermes", HERMES), ("mistral", MISTRAL)])
def test_calls_in_the_text_are_read_in_the_format_that_is_set(sent: Sent, family: str, said: str) -> None:
    def called(name: str) -> int:
        episode = sent(f"tool_format={name}", said=said)["episode"]
        return len(episode["turns"][0]["action"].get("tool_calls", ()))

    assert called(family) == 1
    assert called({"hermes": "mistral", "mistral": "hermes"}[family]) == 0
