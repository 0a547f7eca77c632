"""Settings of a policy and of a judge behind a server, given on the command line and seen at the server."""

from __future__ import annotations

import itertools
import json
import time
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


Judged = Callable[..., tuple[dict[str, Any], list[float]]]


def choice(text: str) -> dict[str, Any]:
    return {"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": text}}]}


@pytest.fixture
def judged(run: Callable[..., Result], web_server: Any) -> Judged:
    """``judged("timeout=1", seconds=2)``: an episode that a judge grades, and when the judge was asked."""

    def play(*settings: str, seconds: float = 0.0, busy: int = 0) -> tuple[dict[str, Any], list[float]]:
        times: list[float] = []

        def answer(body: dict[str, Any], n: int) -> Any:
            if body["model"] == "player":
                return web_server.reply(choice("<answer>somewhere by the sea</answer>"))
            times.append(time.monotonic())
            if len(times) <= busy:
                return web_server.reply({"error": "busy"}, 503)
            return [seconds, web_server.reply(choice('{"correct": true}'))]

        web_server.answer = answer
        words = ["rollout", "search_qa", "--set", "grader=judge", "--set", "documents=60", "--json"]
        words += ["--policy", f"{web_server.url}#player", "--judge", f"{web_server.url}#judge"]
        chosen = [word for setting in settings for word in ("--judge-set", setting)]
        return json.loads(run(*words, *chosen).out), times

    return play


def test_the_judges_time(judged: Judged) -> None:
    patient, _ = judged(seconds=1.5)
    assert patient["score"]["value"] == 1
    hasty, _ = judged("timeout=0.3", "pause=0", seconds=1.5)
    assert hasty["outcome"]["kind"] == "failed"
    assert "VerifierError" in hasty["outcome"]["reason"]


@pytest.mark.parametrize("pause", [0.0, 1.0])
def test_the_judges_pause(judged: Judged, pause: float) -> None:
    """Give or take a half, and twice as long before the second retry."""
    episode, times = judged(f"pause={pause}", busy=2)
    assert episode["score"]["value"] == 1
    first, second = (later - earlier for earlier, later in itertools.pairwise(times))
    assert (first >= 0.5, second >= 1.0) == ((True, True) if pause else (False, False))
