"""Deadlines hold whatever an author's code does; what it brings late changes no record, and others play on."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from envgym.env.chat_env import ChatEnv, Reply
from envgym.env.clock import loop_clock
from envgym.env.services import Services
from envgym.env.tools import tool
from envgym.errors import EnvironmentFailure
from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.records import Message, Observation, Score, Split, Task, ToolCall, ToolSpec, Trajectory
from envgym.rollout.collector import Collector
from envgym.rollout.episode import discard, rollout
from envgym.rollout.mix import MixEntry

TASK = Task(id="t", split="train", messages=())
HOOKS = ["start", "respond", "conclude", "score", "finish", "act", "close"]


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envgym.env.bounded._GRACE_SECONDS", 0.2)
    monkeypatch.setattr("envgym.rollout.episode._CLEANUP_SECONDS", 0.3)
    monkeypatch.setattr("envgym.env.stall._LEAST_SECONDS", 0.4)


async def stubborn(until: float = math.inf) -> None:
    end = time.monotonic() + until
    while time.monotonic() < end:
        try:  # noqa: SIM105
            await asyncio.sleep(0.05)
        except BaseException:  # noqa: BLE001 - the fault under test
            pass


async def stubborn_for_a_while() -> None:
    await stubborn(1.0)


async def spinning() -> None:
    while True:
        pass


class Awkward(ChatEnv):
    """Does ``trouble`` at one place."""

    place = ""
    trouble: Callable[[], Any] = staticmethod(stubborn)

    async def at(self, place: str) -> None:
        if place == self.place:
            await self.trouble()

    def tasks(self, split: Split) -> Sequence[Task]:
        return [TASK]

    async def start(self, task: Task) -> None:
        await self.at("start")

    async def respond(self, action: Message) -> Reply:
        await self.at("respond")
        return await super().respond(action)

    async def conclude(self) -> None:
        await self.at("conclude")

    async def score(self, trajectory: Trajectory) -> Score:  # type: ignore[override]
        await self.at("score")
        return Score(value=1.0, accuracy=1.0)

    async def finish(self) -> None:
        await self.at("finish")

    async def aclose(self) -> None:
        await super().aclose()
        await self.at("aclose")

    async def score_group(self, trajectories: Sequence[Trajectory]) -> Sequence[Score]:  # type: ignore[override]
        await self.at("score_group")
        return [t.score for t in trajectories if t.score]

    @tool(timeout=0.2)
    async def wait(self) -> str:
        """Wait."""
        await self.at("tool")
        return "waited"


class Player(Policy, PolicySession):
    """Calls a tool if there is one to call, then ends; shares the trouble of its environment."""

    def __init__(self, env: Awkward, *calls: str) -> None:
        super().__init__()
        self.env = env
        self.calls = list(calls)

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        return Player(self.env, *self.calls)

    async def act(self, observation: Observation) -> Completion:
        await self.env.at("act")
        calls = tuple(ToolCall(name=name, id=name) for name in self.calls)
        self.calls.clear()
        return Completion(message=Message(role="assistant", content="", tool_calls=calls))

    async def close(self) -> None:
        await self.env.at("close")


async def play(place: str, trouble: Callable[[], Any], *calls: str) -> Trajectory:
    env = Awkward()
    env.place, env.trouble = place, trouble
    started = time.monotonic()
    trajectory = await rollout(env, Player(env, *calls), TASK, name="e", seed=0, deadline=0.3)
    assert time.monotonic() - started < 15
    return trajectory


@pytest.mark.parametrize("place", HOOKS)
async def test_code_that_swallows_its_cancellation_is_missing_data_and_named(place: str) -> None:
    trajectory = await play(place, stubborn)
    assert trajectory.failed
    assert math.isnan(trajectory.reward)
    who = "Player" if place in ("act", "close") else "Awkward"
    assert f"test_limits.{who}.{place} (" in trajectory.outcome.reason
    assert "went on when it was cancelled: abandoned" in trajectory.outcome.reason
    assert [f"{who}.{place}" in name for name in loop_clock().abandoned] == [True]
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("place", ["start", "respond", "score", "act"])
async def test_what_abandoned_code_brings_late_changes_no_record(place: str) -> None:
    trajectory = await play(place, stubborn_for_a_while)
    assert trajectory.failed
    outcome, turns = trajectory.outcome, len(trajectory.turns)
    await asyncio.sleep(1.0)
    assert trajectory.outcome is outcome
    assert trajectory.score is None
    assert len(trajectory.turns) == turns


@pytest.mark.parametrize("place", HOOKS)
async def test_code_that_spins_is_interrupted_and_missing_data(place: str) -> None:
    trajectory = await play(place, spinning)
    assert trajectory.outcome.reason.startswith("EventLoopBlocked: the event loop was blocked for ")
    assert f".{place} (" in trajectory.outcome.reason


async def test_a_stubborn_tool_is_answered_with_its_timeout_and_its_neighbours_answer() -> None:
    env = Awkward()
    env.place = "tool"
    player = Player(env, "wait", "no such tool", "wait")
    trajectory = await rollout(env, player, TASK, name="e", seed=0, deadline=30)
    answers = [message.content for message in trajectory.turns[1].messages]
    assert answers[0] == answers[2] == "error: timed out after 0.2 s"
    assert answers[1].startswith("error: no tool")
    assert trajectory.reward == 1.0
    assert sum(loop_clock().abandoned.values()) == 2


async def test_a_stubborn_aclose_is_bounded() -> None:
    env = Awkward()
    env.place = "aclose"
    with pytest.raises(EnvironmentFailure, match=r"aclose\(\) took longer than 0.3 s, in .*Awkward\.aclose"):
        await discard(env)


async def test_a_stubborn_score_group_loses_its_group_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Awkward, "place", "score_group")
    entry = MixEntry(env=f"{__name__}:Awkward", name="awkward")
    collector = Collector([entry], Player(Awkward()), Services(), deadline=0.5, failure_limit=1.0)
    group = await collector.group("awkward", TASK, 2)
    assert [t.outcome.cause for t in group.trajectories] == ["EpisodeTimeout"] * 2
    assert "score_group() took longer than 0.5 s" in group.trajectories[0].outcome.reason
    await collector.close()


async def test_cancelling_an_episode_of_stubborn_code_ends() -> None:
    env = Awkward()
    env.place = "respond"
    playing = asyncio.create_task(rollout(env, Player(env), TASK, name="e", seed=0, deadline=60))
    await asyncio.sleep(0.1)
    playing.cancel()
    done, _ = await asyncio.wait({playing}, timeout=15)
    assert done
    assert playing.cancelled()


async def test_other_episodes_keep_their_rewards_beside_stubborn_ones() -> None:
    async def calm() -> Trajectory:
        env = Awkward()
        return await rollout(env, Player(env, "wait"), TASK, name="e", seed=0, deadline=30)

    bad, *good = await asyncio.gather(play("respond", stubborn), *(calm() for _ in range(5)))
    assert bad.failed
    assert [t.reward for t in good] == [1.0] * 5
