"""An environment of which three in ten episodes fail, hang or block the loop: the rest keep their true rewards."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from envgym.env.chat_env import ChatEnv, Reply
from envgym.env.services import Services
from envgym.errors import SandboxError
from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.records import Message, Observation, Score, Split, Task, ToolSpec, Trajectory
from envgym.rollout.collector import Collector
from envgym.rollout.mix import MixEntry

_DEADLINE = 0.6
_TURNS = 3


class Troubled(ChatEnv):
    """Troubles are drawn from the episode's seed: 10% fail, 10% outlast the deadline, 10% block the loop."""

    reward_range = (0.0, 6.0)

    async def start(self, task: Task) -> None:
        draw = self.services.rng.random()
        self.kind = ["fails", "hangs", "blocks"][int(draw * 10)] if draw < 0.3 else "works"
        self.trajectory.artifacts["kind"] = self.kind

    def tasks(self, split: Split) -> Sequence[Task]:
        return [Task(id="t", split=split, messages=())]

    async def respond(self, action: Message) -> Reply:
        turns = len(self.trajectory.turns)
        if turns == 2:
            match self.kind:
                case "fails":
                    raise SandboxError("gone")
                case "hangs":
                    await asyncio.sleep(3600)
                case "blocks":
                    time.sleep(0.3)  # noqa: ASYNC251 - the fault under test
        await asyncio.sleep(0.05)
        return Reply(done=turns == _TURNS)

    def score(self, trajectory: Trajectory) -> Score:
        return Score(value=float(trajectory.final_text), accuracy=0.0)


class _Number(Policy, PolicySession):
    """Answers with a number that its seed decides."""

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        opened = _Number()
        opened.answer = str(seed % 7)
        return opened

    async def act(self, observation: Observation) -> Completion:
        return Completion(message=Message(role="assistant", content=self.answer))


@pytest.fixture
async def collector() -> AsyncIterator[Callable[..., Collector]]:
    opened: list[Collector] = []

    def make(**options: Any) -> Collector:
        entry = MixEntry(env=f"{__name__}:Troubled", name="troubled")
        opened.append(Collector([entry], _Number(), Services(), deadline=_DEADLINE, **options))
        return opened[-1]

    yield make
    for made in opened:
        await made.close()


async def test_survivors_keep_their_rewards_and_the_rest_is_counted_by_reason(
    collector: Callable[..., Collector],
) -> None:
    made = collector(retries=0, seed=3)
    task = made.tasks("troubled", "train")[0]
    started = time.monotonic()
    group = await made.group("troubled", task, 60)
    assert time.monotonic() - started < 20
    kinds = [t.artifacts["kind"] for t in group.trajectories]
    blocked, failing, hanging = (kinds.count(k) for k in ("blocks", "fails", "hangs"))
    # Blocked for longer than the deadline in all: by the wall clock every neighbour would be too late.
    assert 0.3 * blocked > _DEADLINE
    assert failing
    assert hanging
    for kind, trajectory in zip(kinds, group.trajectories, strict=True):
        match kind:
            case "fails":
                assert trajectory.outcome.reason == "SandboxError: gone"
            case "hangs":
                assert trajectory.outcome.reason.startswith("EpisodeTimeout: in turn 3 after 0.6 s")
            case _:
                assert trajectory.reward == float(trajectory.final_text)
        assert math.isnan(trajectory.reward) == (kind in ("fails", "hangs"))
    assert made.counts == {
        "episodes": 60,
        "failed": failing + hanging,
        "failed/SandboxError": failing,
        "failed/EpisodeTimeout": hanging,
    }


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (5, 2)])
async def test_a_timeout_is_tried_again_once_at_most(
    collector: Callable[..., Collector], monkeypatch: pytest.MonkeyPatch, retries: int, attempts: int
) -> None:
    """A slow task would cost its deadline for every retry."""

    async def slow(self: Troubled, action: Message) -> Reply:
        await asyncio.sleep(3600)
        raise AssertionError

    monkeypatch.setattr(Troubled, "respond", slow)
    made = collector(retries=retries)
    trajectory = await made.episode("troubled", made.tasks("troubled", "train")[0], 0)
    assert trajectory.outcome.cause == "EpisodeTimeout"
    assert made.counts["episodes"] == made.counts["failed/EpisodeTimeout"] == attempts
