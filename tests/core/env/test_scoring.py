"""No reward leaves the range that its environment declares: it would be learnt from."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envgym.env.chat_env import ChatEnv, Reply
from envgym.env.scoring import checked_group, checked_reply, checked_score
from envgym.errors import EnvironmentFailure, EpisodeError, VerifierError
from envgym.policies.scripted import EmptyPolicy
from envgym.records import Message, Score, Split, Task, Trajectory
from envgym.rollout.episode import rollout

TASK = Task(id="t", split="train", messages=())
SPANS = st.tuples(st.floats(-100, 100), st.floats(0, 100)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def played() -> Trajectory:
    return Trajectory(env="e", task=TASK)


@given(span=SPANS, value=st.floats())
def test_a_score_is_taken_if_and_only_if_it_is_declared(span: tuple[float, float], value: float) -> None:
    declared = span[0] - 1e-6 <= value <= span[1] + 1e-6
    score = Score(value=value, accuracy=0.0)
    try:
        assert checked_score(score, played(), span) is score
        assert declared
    except EpisodeError:
        assert not span[0] <= value <= span[1]


@given(span=SPANS, value=st.floats())
def test_a_turn_is_worth_nothing_or_what_is_declared(span: tuple[float, float], value: float) -> None:
    try:
        checked_reply(Reply(reward=value), span)
        assert value == 0 or span[0] - 1e-6 <= value <= span[1] + 1e-6
    except EpisodeError:
        assert value != 0
        assert not span[0] <= value <= span[1]


def test_sums_of_weights_are_rounded_and_taken() -> None:
    total = sum([0.7, 0.2, 0.1, 0.0]) + 2e-16
    assert total > 1 or total == 1
    checked_score(Score(value=math.nextafter(1.0, 2), accuracy=1.0), played(), (0.0, 1.0))


@pytest.mark.parametrize("value", [1.5, -0.01, 1e300])
def test_scores_of_a_group_and_of_a_cut_episode_are_held_to_the_range(value: float) -> None:
    wrong = Score(value=value, accuracy=0.0)
    with pytest.raises(EnvironmentFailure, match="outside reward_range, which is 0 to 1"):
        checked_group([wrong], [played()], (0.0, 1.0))
    with pytest.raises(EnvironmentFailure, match="outside reward_range"):
        checked_score(Score(value=0.0, accuracy=0.0, as_it_stands=wrong), played(), (0.0, 1.0))


@pytest.mark.parametrize("given", [None, "1.0", {"reward": 1.0}, (), 1.0])
def test_what_is_no_reply_is_refused(given: Any) -> None:
    with pytest.raises(EnvironmentFailure, match="respond\\(\\) must return a Reply"):
        checked_reply(given, (0.0, 1.0))


class Generous(ChatEnv):
    """Gives what it was made to give."""

    turn: ClassVar[Any] = 0.0
    end: ClassVar[Any] = 1.0

    def tasks(self, split: Split) -> list[Task]:
        return [TASK]

    async def respond(self, action: Message) -> Reply:
        return Reply(reward=self.turn, done=True)

    def score(self, trajectory: Trajectory) -> Score:
        return Score(value=self.end, accuracy=1.0)


@pytest.mark.parametrize(
    ("turn", "end", "span", "error"),
    [
        (0.0, 2.0, (0.0, 1.0), EnvironmentFailure),
        (-0.5, 1.0, (0.0, 1.0), EnvironmentFailure),
        (math.nan, 1.0, (0.0, 1.0), VerifierError),
        (-math.inf, 1.0, (-1.0, 1.0), VerifierError),
        ("1", 1.0, (0.0, 1.0), EnvironmentFailure),
        (-0.5, 1.0, (-0.5, 1.0), None),
        (0.0, 0.5, (0.25, 0.5), None),
    ],
)
async def test_a_reward_outside_the_range_is_missing_data(
    turn: Any, end: float, span: tuple[float, float], error: type[Exception] | None
) -> None:
    kind = type("Generous", (Generous,), {"turn": turn, "end": end, "reward_range": span})
    trajectory = await rollout(kind(), EmptyPolicy(), TASK, name="e", seed=0)
    assert trajectory.outcome.cause == (error.__name__ if error else "")
    assert math.isnan(trajectory.reward) == bool(error)
