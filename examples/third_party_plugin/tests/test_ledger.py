"""The environment of this distribution: solvable, not solved by accident, and safe against bad calls."""

from __future__ import annotations

import asyncio

from envgym_ledger.ledger import Ledger

from envgym.policies.interface import Policy
from envgym.policies.scripted import EmptyPolicy, Expert
from envgym.records import Message, ToolCall, Trajectory, from_json, to_json
from envgym.rollout.episode import rollout


def _transfer(source: str, target: str, amount: int = 1) -> Message:
    arguments = {"source": source, "target": target, "amount": amount}
    call = ToolCall(name="transfer", arguments=arguments, id="call_0")
    return Message(role="assistant", content="", tool_calls=(call,))


def _play(policy: Policy, index: int) -> Trajectory:
    env = Ledger(split="held_out")
    return asyncio.run(rollout(env, policy, env.task_list("held_out")[index], name="ledger", seed=0))


def test_the_expert_pays_and_silence_does_not() -> None:
    assert [_play(Expert(), i).reward for i in range(20)] == [1.0] * 20
    assert [_play(EmptyPolicy(), i).reward for i in range(20)] == [0.0] * 20


def test_a_stored_trajectory_scores_the_same() -> None:
    played = _play(Expert(), 0)
    stored = from_json(Trajectory, to_json(played))
    assert asyncio.run(_score(stored)) == played.score


async def _score(trajectory: Trajectory) -> object:
    return await Ledger().score(trajectory)


def test_a_changed_third_account_sends_the_score_to_zero() -> None:
    env = Ledger()
    task = env.task_list("train")[0]
    _, pay, final = env.gold(task)
    order = pay.tool_calls[0].arguments
    third = next(n for n in task.reference["opening"] if n not in (order["source"], order["target"]))
    for step_back in (False, True):
        env.reset(options={"task": task})
        env.step(pay)
        env.step(_transfer(third, order["source"]))
        if step_back:
            env.step(_transfer(order["source"], third))
        _, reward, terminated, _, info = env.step(final)
        assert terminated
        assert (reward, info["score"].components["others_untouched"]) == (float(step_back), float(step_back))


def test_a_payment_that_is_not_covered_is_answered_and_not_made() -> None:
    env = Ledger()
    env.reset(seed=0)
    observation = env.step(_transfer("Ada", "Ben", 10**6))[0]
    assert observation.messages[0].content.startswith("error: ")
    assert "payments" not in env.trajectory.artifacts
