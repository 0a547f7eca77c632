"""Whatever a server sends, an episode ends in a typed result: completed, truncated, or missing data."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from envgym.chat.answers import read_answer, read_error
from envgym.chat.overlong import is_overlong
from envgym.chat.refusals import refused_parts
from envgym.chat.tool_formats import HermesFormat
from envgym.chat.wire import Said, read_calls, write_messages
from envgym.errors import PolicyError
from envgym.policies.interface import ContextFull
from envgym.policies.openai import HttpPolicy
from envgym.records import Message, Observation, Turn, from_json, to_json
from envgym.web.service import Answer, Refusal, Undecided

SENT = {"model": "m", "seed": 1, "max_tokens": 8, "tools": [], "messages": [{"role": "user", "content": "?"}]}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, {"b": "}"}]}'}}
PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "7"}]
BODIES: list[Any] = [
    {"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": "7"}}]},
    {"choices": [{"finish_reason": "tool_calls", "message": {"content": None, "tool_calls": [CALL, CALL]}}]},
    {"choices": [{"finish_reason": "length", "message": {"content": PARTS}}], "usage": {"completion_tokens": 3}},
    {"choices": [{"finish_reason": "stop", "message": {"content": "", "reasoning_details": [{"text": "a"}]}}]},
    {"error": {"message": "maximum context length is 8", "param": "seed", "code": "unsupported_value"}},
    {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "no", "input": 1}]},
]
ODD: list[Any] = [
    None,
    True,
    -1,
    10**40,
    1e308,
    "",
    "\ud800",
    "\x00",
    "x" * 5000,
    [],
    {},
    [[]],
    {"a": 1},
    ["a", 5],
]


def mutated(draw: random.Random, value: Any) -> Any:
    """Return ``value`` with some of its parts replaced, dropped, doubled or renamed."""
    if draw.random() < 0.08:
        return draw.choice(ODD)
    if isinstance(value, dict):
        kept = {k: mutated(draw, v) for k, v in value.items() if draw.random() > 0.04}
        return {(draw.choice(list(kept)) if draw.random() < 0.04 else k): v for k, v in kept.items()}
    if isinstance(value, list):
        return [mutated(draw, v) for v in value for _ in range(draw.choice([0, 1, 1, 1, 1, 1, 40]))]
    return value


def texts(draw: random.Random, count: int) -> Iterator[str]:
    """Yield bodies, some of them no JSON."""
    for _ in range(count):
        text = json.dumps(mutated(draw, draw.choice(BODIES)))
        if draw.random() < 0.3:
            place = draw.randrange(len(text) + 1)
            text = (
                text[:place]
                + draw.choice(["", "[" * 2000, "\ud800", "NaN", '"', "}", "<html>"])
                + text[place + 3 :]
            )
        yield text


@pytest.mark.parametrize("seed", range(4))
def test_six_thousand_bodies_are_read_or_refused(seed: int) -> None:
    draw, tool_format = random.Random(seed), HermesFormat()
    decided = 0
    for text in texts(draw, 1500):
        answer = Answer(status=draw.choice([200, 200, 200, 400, 413, 422, 500]), text=text)
        try:
            answer = read_error(answer)
            is_overlong(answer)
            assert refused_parts(text, SENT) <= {"seed", "max_tokens", "tools"} | {
                "roles other than user and assistant in turn"
            }
            said = read_answer(answer, SENT)
        except (Undecided, Refusal):
            continue
        decided += 1
        message = Message(
            role="assistant",
            content=said.text,
            tool_calls=read_calls(said.calls, 0),
            reasoning=said.reasoning,
        )
        assert from_json(Turn, to_json(Turn(messages=(), action=message))).action == message
        for refused in ((), ("tools",), ("roles other than user and assistant in turn",)):
            written = write_messages([Said(message=message, echo=said.echo)], (), tool_format, refused)
            json.dumps(written, ensure_ascii=False).encode("utf-8", "replace")
    assert decided > 100


@pytest.fixture
def policy(web_server: Any) -> Callable[[Callable[[Any, int], bytes]], HttpPolicy]:
    def make(answer: Callable[[Any, int], bytes]) -> HttpPolicy:
        web_server.answer = answer
        return HttpPolicy(url=web_server.url, model="m", pause=0.0, timeout=20.0)

    return make


async def test_whatever_comes_over_the_wire_is_a_completion_or_a_typed_failure(
    policy: Any, web_server: Any
) -> None:
    """Heads and bodies with bytes changed, dropped and added."""
    draw = random.Random(0)

    def answer(body: Any, n: int) -> bytes:
        text = next(texts(draw, 1)).encode("utf-8", "replace")
        raw = bytearray(web_server.reply(text, draw.choice([200, 200, 400, 429, 529]), content_type="text/x"))
        for _ in range(draw.choice([0, 0, 1, 5])):
            place = draw.randrange(len(raw))
            raw[place : place + draw.randrange(3)] = draw.randbytes(draw.randrange(3))
        return bytes(raw[: draw.choice([len(raw), len(raw), draw.randrange(len(raw))])])

    player = policy(answer)
    asked = Observation(messages=(Message(role="user", content="?"),))

    async def once(seed: int) -> str:
        try:
            return type(await player.open((), seed).act(asked)).__name__
        except (PolicyError, ContextFull) as error:
            return type(error).__name__ if str(error).isprintable() else str(error)

    async with asyncio.timeout(300):
        ends = [await once(seed) for seed in range(60)]
    await player.close()
    assert {"Completion", "PolicyError"} <= set(ends) <= {"Completion", "PolicyError", "ContextFull"}
