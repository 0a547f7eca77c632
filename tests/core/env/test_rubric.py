"""A rubric's score is the weighted sum that its rewards say, or the floor; an undecided reward is no number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from envgym.env.rubric import Reward, Rubric
from envgym.errors import VerifierError
from envgym.records import Message, Outcome, Task, Trajectory

TASK = Task(id="t", split="train", messages=(Message(role="user", content="?"),))


def played(outcome: Outcome | None = None) -> Trajectory:
    return Trajectory(env="e", task=TASK, outcome=outcome or Outcome.completed())


def reward(name: str, value: Any, weight: float = 1.0, gate: bool = False) -> Reward:
    return Reward(name=name, function=lambda _: value, weight=weight, gate=gate)


async def test_the_score_is_the_weighted_sum_and_keeps_its_parts() -> None:
    async def judge(_: Trajectory) -> float:
        return 0.5

    rubric = Rubric(
        reward("right", True, 0.75), Reward(name="style", function=judge, weight=0.5), reward("g", 1, gate=True)
    )
    score = await rubric.score(played())
    assert score.value == 0.75 + 0.25
    assert score.accuracy == 1.0
    assert score.components == {"right": 1.0, "style": 0.5, "g": 1.0}


async def test_a_closed_gate_gives_the_floor_whatever_else_was_earned() -> None:
    rubric = Rubric(reward("g", 0, gate=True), reward("right", 1.0), floor=-1.0)
    score = await rubric.score(played())
    assert (score.value, score.accuracy) == (-1.0, 0.0)
    assert score.components == {"g": 0.0, "right": 1.0}


@pytest.mark.parametrize(("policy", "value", "accuracy"), [("floor", -1.0, 0.0), ("score", 1.0, 1.0)])
async def test_a_truncated_episode_is_worth_what_the_rubric_says(
    policy: Any, value: float, accuracy: float
) -> None:
    rubric = Rubric(reward("right", 1.0), floor=-1.0, truncated=policy)
    score = await rubric.score(played(Outcome.truncated("turns")))
    assert (score.value, score.accuracy) == (value, accuracy)
    whole = score.as_it_stands or score
    assert (whole.value, whole.accuracy) == (1.0, 1.0), "what it is worth as it stands is told either way"


async def test_a_closed_gate_is_closed_for_a_truncated_episode_as_well() -> None:
    rubric = Rubric(reward("g", 0, gate=True), reward("right", 1.0), floor=-1.0)
    score = await rubric.score(played(Outcome.truncated("tokens")))
    assert (score.value, score.as_it_stands) == (-1.0, None)


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "1", [1.0]])
async def test_a_reward_that_is_no_number_is_an_error_and_not_zero(value: Any) -> None:
    with pytest.raises(VerifierError, match="'judge' returned"):
        await Rubric(reward("right", 1.0), reward("judge", value)).score(played())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Rubric(reward("a", 1), reward("a", 0)), "must differ"),
        (lambda: Rubric(), "at least one"),
        (lambda: Rubric(reward("g", 1, gate=True)), "at least one"),
    ],
)
def test_a_rubric_without_a_score_is_refused(make: Callable[[], Rubric], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
