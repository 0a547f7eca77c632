"""A bad episode is data: it fails with its cause, has no reward, is cleaned up once, and nothing hangs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from toys import Adder

from envgym.errors import PolicyError, UserError
from envgym.policies.interface import ContextFull, Policy
from envgym.policies.scripted import EmptyPolicy, Expert, RandomPolicy
from envgym.records import Message, OutcomeKind, Trajectory
from envgym.rollout.episode import rollout
from envgym.rollout.turnstile import Turnstile

Make = Callable[..., Adder]
Say = Callable[..., Message]


async def play(env: Adder, policy: Policy, deadline: float = 20.0) -> Trajectory:
    return await rollout(env, policy, env.task_list("train")[0], name="sums", seed=9, deadline=deadline)


async def test_a_good_episode(adder: Make) -> None:
    env = adder()
    trajectory = await play(env, Expert())
    assert trajectory.outcome.kind is OutcomeKind.COMPLETED
    assert trajectory.reward == 1.0
    assert (trajectory.env, trajectory.seed) == ("sums", 9)
    assert trajectory.tools == tuple(t.spec for t in env.tools.values())
    assert trajectory.turns[0].messages == trajectory.task.messages
    assert env.starts == env.finishes == 1
    assert trajectory.seconds >= 0


async def test_the_policies_without_a_model(adder: Make) -> None:
    assert (await play(adder(), EmptyPolicy())).reward == 0.0
    first, second = await play(adder(), RandomPolicy()), await play(adder(), RandomPolicy())
    assert [t.action for t in first.turns] == [t.action for t in second.turns]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("start", "EnvironmentFailure: RuntimeError: no power"),
        ("respond", "EnvironmentFailure: RuntimeError: wires crossed"),
        ("timeout", "EnvironmentFailure: TimeoutError: inner"),
        ("sandbox", "SandboxError: gone"),
        ("score", "EnvironmentFailure: KeyError: 'answer'"),
        ("verifier", "VerifierError: undecided"),
        ("nan", "VerifierError: a reward that is not a number"),
        ("finish", "EnvironmentFailure: RuntimeError: cannot tidy up"),
    ],
)
async def test_a_failure_of_the_environment_is_missing_data(adder: Make, trouble: str, reason: str) -> None:
    env = adder(trouble)
    trajectory = await play(env, Expert())
    assert trajectory.failed
    assert trajectory.outcome.reason.startswith(reason)
    assert math.isnan(trajectory.reward)
    assert env.starts == env.finishes == 1


async def test_a_failing_tool_is_missing_data(adder: Make, script: Any, say: Say) -> None:
    env = adder()
    trajectory = await play(env, script(say("", ("broken", {}))))
    assert trajectory.outcome.reason == "ToolError: tool 'broken' raised OSError: disk on fire"
    assert math.isnan(trajectory.reward)
    assert len(trajectory.turns) == 1
    assert env.finishes == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [(PolicyError("down"), "PolicyError: down"), (ValueError("x"), "PolicyError: ValueError: x")],
)
async def test_a_failing_policy_is_missing_data(adder: Make, script: Any, error: Exception, reason: str) -> None:
    env, policy = adder(), script(error)
    trajectory = await play(env, policy)
    assert trajectory.outcome.reason == reason
    assert math.isnan(trajectory.reward)
    assert policy.closed == env.finishes == 1


async def test_a_policy_that_cannot_open_or_close_is_missing_data(adder: Make, script: Any, say: Say) -> None:
    class NoDoor(EmptyPolicy):
        def open(self, *_: Any) -> Any:
            raise OSError("no door")

    assert (await play(adder(), NoDoor())).outcome.reason == "PolicyError: OSError: no door"
    policy = script(say("1"))
    policy.closing_error = OSError("stuck")
    assert (await play(adder(), policy)).outcome.reason == "PolicyError: OSError: stuck"


async def test_a_failure_beside_a_failing_cleanup_keeps_its_cause(adder: Make, script: Any) -> None:
    env = adder("finish")
    trajectory = await play(env, script(PolicyError("down")))
    assert trajectory.outcome.reason == "PolicyError: down"
    assert env.finishes == 1


async def test_a_failure_does_not_touch_the_trajectory_before_it(
    adder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same task object, twice on one instance, the second time failing before it begins."""

    async def broken(**_: Any) -> Any:
        raise RuntimeError("before anything")

    env = adder()
    task = env.task_list("train")[0]
    first = await rollout(env, Expert(), task, name="sums", seed=1)
    monkeypatch.setattr(env, "areset", broken)
    second = await rollout(env, Expert(), task, name="sums", seed=2)
    assert first.reward == 1.0
    assert first.seed == 1
    assert second.failed
    assert second.task is task
    assert second.turns == []


async def test_a_users_mistake_passes_through(adder: Make, script: Any) -> None:
    for env, policy in ((adder("user"), Expert()), (adder(), script(UserError("set it right")))):
        with pytest.raises(UserError, match="set it right"):
            await play(env, policy)
        assert env.finishes == 1


async def test_a_slow_tool_makes_missing_data(adder: Make, script: Any, say: Say) -> None:
    """The policy does not choose the wall clock: no reward, not even 0."""
    env = adder()
    trajectory = await play(env, script(say("thinking", ("nap", {"seconds": 3600}))), deadline=0.3)
    assert trajectory.outcome.reason.startswith("EpisodeTimeout: in turn 2 after 0.3 s; raise the deadline")
    assert trajectory.failed
    assert math.isnan(trajectory.reward)
    assert trajectory.score is None
    assert [t.action.content for t in trajectory.turns] == ["thinking"]
    assert env.finishes == 1


async def test_a_slow_policy_makes_missing_data_and_its_session_is_closed(
    adder: Make, script: Any, say: Say
) -> None:
    env, policy = adder(), script(say("", ("add", {"a": 1})), 3600.0)
    trajectory = await play(env, policy, deadline=0.5)
    assert trajectory.outcome.cause == "EpisodeTimeout"
    assert len(trajectory.turns) == 1
    assert policy.closed == env.finishes == 1


@pytest.mark.parametrize(
    ("trouble", "progress"),
    [("hang_start", "not begun"), ("hang_score", "over, but not scored and cleaned up")],
)
async def test_what_hangs_before_it_begins_or_while_it_is_scored_fails(
    adder: Make, trouble: str, progress: str
) -> None:
    env = adder(trouble)
    trajectory = await play(env, Expert(), deadline=0.3)
    assert trajectory.failed
    assert trajectory.outcome.reason.startswith(f"EpisodeTimeout: {progress} after 0.3 s")
    assert env.starts == env.finishes == 1


async def test_cleaning_up_is_bounded(adder: Make, script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envgym.rollout.episode._CLEANUP_SECONDS", 0.2)
    started = time.monotonic()
    untidy = await play(adder("hang_finish"), script(PolicyError("down")))
    assert untidy.outcome.reason == "PolicyError: down"
    assert time.monotonic() - started < 10


async def test_a_full_context_is_truncated_and_scored(adder: Make, script: Any, say: Say) -> None:
    trajectory = await play(adder(), script(say("", ("add", {"a": 1})), ContextFull()))
    assert (trajectory.outcome.kind, trajectory.outcome.reason) == (OutcomeKind.TRUNCATED, "context")
    assert trajectory.reward == 0.0


async def test_a_message_that_the_context_cut_is_not_blamed_on_the_cap_of_a_turn(adder: Make, script: Any) -> None:
    cut = Message(role="assistant", content="1", cut=True, cut_by="context")
    trajectory = await play(adder(), script(cut))
    assert (trajectory.outcome.kind, trajectory.outcome.reason) == (OutcomeKind.TRUNCATED, "context")


@pytest.mark.parametrize("reason", ["tokens", "turns"])
async def test_limits_truncate(adder: Make, script: Any, say: Say, reason: str) -> None:
    actions = [say("1", cut=True)] if reason == "tokens" else [say("", ("add", {"a": 1}))] * 2
    trajectory = await play(adder(max_turns=2), script(*actions))
    assert (trajectory.outcome.kind, trajectory.outcome.reason) == (OutcomeKind.TRUNCATED, reason)
    assert not math.isnan(trajectory.reward)


@pytest.mark.parametrize("trouble", ["", "hang_start", "hang_score", "finish"])
async def test_cancellation_cleans_up_once_and_is_not_swallowed(
    adder: Make, script: Any, say: Say, trouble: str
) -> None:
    env = adder(trouble)
    policy = script(say("", ("nap", {"seconds": 3600}))) if trouble in ("", "finish") else Expert()
    playing = asyncio.ensure_future(play(env, policy))
    await asyncio.sleep(0.1)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert env.starts == env.finishes == 1
    assert len(asyncio.all_tasks()) == 1


async def test_episodes_that_wake_at_once_take_their_turns_in_several_passes_of_the_loop(
    adder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one pass would keep everything else waiting; 64 whose boot ends at the same moment."""
    booted = asyncio.Event()
    monkeypatch.setattr(Adder, "start", lambda self, task: booted.wait())
    turns: list[int] = []
    respond, passed = Adder.respond, 0

    async def record(self: Adder, action: Message) -> Any:
        turns.append(passed)
        return await respond(self, action)

    monkeypatch.setattr(Adder, "respond", record)
    turnstile = Turnstile(64)
    envs = [adder() for _ in range(64)]
    playing = [
        asyncio.ensure_future(
            rollout(env, Expert(), env.task_list("train")[0], name="sums", seed=0, turnstile=turnstile)
        )
        for env in envs
    ]
    await asyncio.sleep(0.1)
    booted.set()
    while not all(task.done() for task in playing):
        await asyncio.sleep(0)
        passed += 1
    assert [task.result().reward for task in playing] == [1.0] * 64
    assert max(turns.count(number) for number in turns) == 16
