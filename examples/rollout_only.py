"""Play and score episodes without a trainer; no model library is imported. Run: python examples/rollout_only.py

First one episode through Gymnasium, step by step; then a policy written by hand against a random one, many
episodes at once, on the same held-out questions.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import gymnasium

import envgym  # noqa: F401 - registers the environments with Gymnasium
from envgym.env.services import Services
from envgym.evaluate import Interval, evaluate
from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.policies.scripted import RandomPolicy
from envgym.records import Message, Observation, ToolCall, ToolSpec
from envgym.rollout.collector import Collector
from envgym.rollout.mix import MixEntry

_ENTITY = re.compile(r"[A-Z]\w+(?: [A-Z]\w+)*")
_TASKS = 50


class LastName(Policy):
    """Searches for the last name in the question and answers with the last name in the document."""

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        """Begin an episode."""
        return _LastNameSession()


class _LastNameSession(PolicySession):
    async def act(self, observation: Observation) -> Completion:
        latest = observation.messages[-1]
        names = _ENTITY.findall(latest.content) or [""]
        if latest.role == "tool":
            return Completion(message=Message(role="assistant", content=f"<answer>{names[-1]}</answer>"))
        call = ToolCall(name="search", arguments={"query": names[-1]}, id="call_0")
        return Completion(message=Message(role="assistant", content="", tool_calls=(call,)))


def one_episode() -> float:
    """Play one arithmetic problem by hand and return its reward."""
    env = gymnasium.make("envgym/math_problems-v1", split="held_out", families=["arithmetic"])
    observation, _ = env.reset(seed=0)
    question = observation.messages[-1].content
    call = ToolCall(name="calculator", arguments={"expression": question[len("What is ") : -1]}, id="call_0")
    observation, *_ = env.step(Message(role="assistant", content="", tool_calls=(call,)))
    result = observation.messages[-1].content
    answer = Message(role="assistant", content=f"<answer>{result}</answer>")
    _, reward, terminated, truncated, _ = env.step(answer)
    print(f"{question} {result}: reward {reward:g}, terminated {terminated}, truncated {truncated}")
    env.close()
    return float(reward)


async def score(policy: Policy) -> Interval:
    """Mean reward on held-out one-hop questions, with its 95% interval over questions."""
    entry = MixEntry(env="search_qa-v1", settings={"hops": [1]})
    async with Services() as services:
        collector = Collector([entry], policy, services, seed=0, concurrency=16)
        scores = await evaluate(collector, [entry.label], split="held_out", limit=_TASKS)
        await collector.close()
    return scores[entry.label].interval()


def main() -> None:
    """Run both parts."""
    one_episode()
    for policy in (LastName(), RandomPolicy()):
        print(f"{type(policy).__name__}: {asyncio.run(score(policy))}")


if __name__ == "__main__":
    main()
