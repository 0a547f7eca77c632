"""A control replaces the reward of training, and missing data stays missing under it."""

from __future__ import annotations

import math

from envgym.controls import controlled
from envgym.data import Outcome, Score, Task, Trajectory


def played(seed: int, failed: bool = False) -> Trajectory:
    outcome = Outcome.failed(ValueError("x")) if failed else Outcome.completed()
    score = None if failed else Score(value=0.75, accuracy=1.0)
    return Trajectory(
        env="e", task=Task(id="t", split="train", messages=()), seed=seed, outcome=outcome, score=score
    )


def test_without_a_control_the_reward_is_the_trajectorys() -> None:
    assert controlled("none", played(0)) == (0.75, 1.0)


def test_a_random_reward_is_a_fair_coin_that_the_trajectory_seeds() -> None:
    """Of 1,000 fair coins, 450 to 550 fall on one side in all but 1 of 600 cases; the seeds are fixed."""
    coins = [controlled("random", played(seed)) for seed in range(1000)]
    assert all(reward == accuracy and reward in (0.0, 1.0) for reward, accuracy in coins)
    assert 450 < sum(reward for reward, _ in coins) < 550
    assert coins == [controlled("random", played(seed)) for seed in range(1000)]


def test_missing_data_stays_missing() -> None:
    for control in ("none", "random"):
        assert all(math.isnan(x) for x in controlled(control, played(0, failed=True)))
