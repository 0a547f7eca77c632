"""Scores of a group against each other: aligned, checked, bounded in time; what goes wrong is missing data."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar

import pytest

from envgym.check import CHECKS, Subject
from envgym.env.chat_env import ChatEnv
from envgym.env.services import Services
from envgym.errors import SandboxError, UserError
from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.records import Message, Observation, Score, Split, Task, Trajectory
from envgym.rollout.collector import Collector, TooManyFailures
from envgym.rollout.mix import MixEntry


class Taste(ChatEnv):
    """Say something good. Each member scores 0.5 by itself; how good it is, the group decides."""

    trouble: ClassVar[str] = ""

    def tasks(self, split: Split) -> Sequence[Task]:
        return [Task(id=split, split=split, messages=(Message(role="user", content="say something"),))]

    def gold(self, task: Task) -> Sequence[Message]:
        return [Message(role="assistant", content="best")]

    def score(self, trajectory: Trajectory) -> Score:
        if trajectory.final_text == "lost":
            raise SandboxError("gone")
        return Score(value=0.5, accuracy=1.0)


class Ranked(Taste):
    """Longer is better, in ranks from 0 to 1."""

    def score_group(self, trajectories: Sequence[Trajectory]) -> Sequence[Score] | Awaitable[Sequence[Score]]:
        texts = [t.final_text for t in trajectories]
        scores = [Score(value=_share(len(text), map(len, texts)), accuracy=0.0) for text in texts]
        match self.trouble:
            case "raises":
                raise ZeroDivisionError("nobody")
            case "short":
                return scores[1:]
            case "nan":
                return [Score(value=float("nan"), accuracy=0.0) for _ in texts]
            case "numbers":
                return [1.0 for _ in texts]  # type: ignore[misc]
            case "user":
                raise UserError("name a judge")
            case "hang":
                return self._hang()
        return scores

    async def _hang(self) -> Sequence[Score]:
        await asyncio.sleep(3600)
        return []


class Judged(Taste):
    """A language model compares every two members; the score is the share of comparisons won."""

    async def score_group(self, trajectories: Sequence[Trajectory]) -> Sequence[Score]:
        wins = [0.0] * len(trajectories)
        for i, j in itertools.combinations(range(len(trajectories)), 2):
            first, second = trajectories[i].final_text, trajectories[j].final_text
            better = await self.services.judge().prefer("say something", first, second, "longer is better")
            wins[i] += {"first": 1.0, "second": 0.0, "tie": 0.5}[better]
            wins[j] += {"first": 0.0, "second": 1.0, "tie": 0.5}[better]
        most = max(1, len(trajectories) - 1)
        return [Score(value=won / most, accuracy=float(won == most), components={"won": won}) for won in wins]


class Ordered(Taste):
    """Scores by the place in the list, which says nothing."""

    def score_group(self, trajectories: Sequence[Trajectory]) -> Sequence[Score]:
        return [Score(value=float(i == 0), accuracy=0.0) for i, _ in enumerate(trajectories)]


def _share(mine: int, lengths: Any) -> float:
    others = sorted(lengths)
    return others.index(mine) / max(1, len(others) - 1)


class Lines(Policy, PolicySession):
    """Says the next line in each episode."""

    def __init__(self, *lines: str) -> None:
        super().__init__()
        self.lines = list(lines)

    def open(self, tools: Any, seed: int) -> PolicySession:
        return self

    async def act(self, observation: Observation) -> Completion:
        return Completion(message=Message(role="assistant", content=self.lines.pop(0)))


async def play(kind: type[ChatEnv], *lines: str, services: Services | None = None, **options: Any) -> Any:
    entry = MixEntry(env=f"{kind.__module__}:{kind.__name__}", name="taste")
    collector = Collector([entry], Lines(*lines), services or Services(), **{"retries": 0, **options})
    group = await collector.group("taste", collector.tasks("taste", "train")[0], len(lines))
    await collector.close()
    return group, collector


async def test_by_default_each_keeps_its_own_score() -> None:
    group, _ = await play(Taste, "a", "bb")
    assert group.rewards == [0.5, 0.5]
    assert [t.score.metrics for t in group.trajectories] == [{}, {}]


async def test_ranks_replace_scores_and_the_old_ones_are_kept() -> None:
    group, _ = await play(Ranked, "bb", "a", "cccc")
    assert group.rewards == [0.5, 0.0, 1.0]
    assert [t.score.metrics for t in group.trajectories] == [{"individual": 0.5}] * 3


async def test_a_failed_member_is_left_out_and_the_others_keep_their_places() -> None:
    group, _ = await play(Ranked, "bb", "lost", "a")
    assert [r for r in group.rewards if not math.isnan(r)] == [1.0, 0.0]
    assert [t.failed for t in group.trajectories] == [False, True, False]
    lost, _ = await play(Ranked, "lost", "lost")
    assert all(map(math.isnan, lost.rewards))


async def test_a_judge_compares_the_members_pairwise(judge_server: Any) -> None:
    def prefer_the_longer(shown: dict[str, str]) -> str:
        lengths = len(shown["A"]), len(shown["B"])
        better = "tie" if lengths[0] == lengths[1] else "A" if lengths[0] > lengths[1] else "B"
        return json.dumps({"better": better})

    judge_server.reply = prefer_the_longer
    async with Services(judge=f"{judge_server.url}#m") as services:
        group, _ = await play(Judged, "good", "better and longer", "fair", services=services)
    assert group.rewards == [0.25, 1.0, 0.25]
    assert [t.score.accuracy for t in group.trajectories] == [0.0, 1.0, 0.0]
    assert len(judge_server.seen) == 6, "three pairs, each in both orders"


async def test_a_judge_that_is_down_makes_the_group_missing_data(judge_server: Any) -> None:
    judge_server.status = 400
    async with Services(judge=f"{judge_server.url}#m") as services:
        group, collector = await play(Judged, "good", "better", services=services)
    assert all(map(math.isnan, group.rewards))
    assert all(t.outcome.reason.startswith("VerifierError") for t in group.trajectories)
    assert collector.counts["failed/VerifierError"] == 2


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("raises", "EnvironmentFailure: ZeroDivisionError: nobody"),
        ("short", "EnvironmentFailure: score_group() must return 2 scores"),
        ("nan", "VerifierError: a reward that is not a number"),
        ("numbers", "EnvironmentFailure: score_group(), for each trajectory, must return a Score, got float"),
        ("hang", "EpisodeTimeout: score_group() took longer than 0.2 s"),
    ],
)
async def test_what_goes_wrong_is_missing_data_never_a_zero(
    monkeypatch: pytest.MonkeyPatch, trouble: str, reason: str
) -> None:
    monkeypatch.setattr(Ranked, "trouble", trouble)
    group, collector = await play(Ranked, "a", "bb", deadline=0.2 if trouble == "hang" else 20.0)
    assert all(map(math.isnan, [*group.rewards, *group.accuracies]))
    assert all(t.outcome.reason.startswith(reason) for t in group.trajectories)
    assert collector.counts["failed"] == collector.counts["episodes"] == 2


async def test_groups_that_all_fail_stop_the_run_and_users_mistakes_end_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Ranked, "trouble", "raises")
    with pytest.raises(TooManyFailures, match="taste: EnvironmentFailure: ZeroDivisionError: nobody"):
        await play(Ranked, *["a"] * 20)
    monkeypatch.setattr(Ranked, "trouble", "user")
    with pytest.raises(UserError, match="name a judge"):
        await play(Ranked, "a", "bb")


@pytest.mark.parametrize(("kind", "faults"), [(Taste, 0), (Ranked, 0), (Ordered, 1)])
def test_the_quality_gate_looks_at_groups(kind: type[ChatEnv], faults: int) -> None:
    (check,) = (c for c in CHECKS if c.name == "a group's scores follow its members")
    env = kind()
    found = check.faults(Subject(make=kind, env=env, episodes=1))
    env.close()
    assert len(found) == faults
    assert all("depend on the order" in fault for fault in found)
