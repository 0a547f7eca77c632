"""A control replaces the reward of training, and missing data stays missing under it."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from toys import Adder

from envgym.env.rubric import Reward, Rubric
from envgym.policies.scripted import Expert, Script
from envgym.records import (
    Message,
    Outcome,
    Score,
    Task,
    ToolCall,
    Trajectory,
    Turn,
    TurnTokens,
    from_json,
    to_json,
)
from envgym.rollout.episode import rollout
from envgym_trainers.controls import RewardSettings, controlled, mislabel
from envgym_trainers.truncation import TruncatedSettings

PENALISED = TruncatedSettings()
NONE, COIN, FORMAT, WRONG = (RewardSettings(control=c) for c in ("none", "random", "format", "wrong_label"))
ENTROPY, LENGTH = RewardSettings(control="entropy"), RewardSettings(control="length")
CONTROLS = [c for c in get_args(RewardSettings.model_fields["control"].annotation) if c != "none"]


def sampled(*turns: list[float], role: str = "") -> Trajectory:
    """A trajectory with these log-probs, turn by turn."""
    trajectory = played(0)
    trajectory.role = role
    for logprobs in turns:
        ids = list(range(len(logprobs)))
        tokens = TurnTokens(prompt_ids=[1], completion_ids=ids, logprobs=logprobs, policy_version=0)
        trajectory.turns.append(Turn(messages=(), action=Message(role="assistant", content="x"), tokens=tokens))
    return trajectory


class Forbidden:
    """A score that nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the control read the true {name}")


def played(seed: int, failed: bool = False) -> Trajectory:
    outcome = Outcome.failed(ValueError("x")) if failed else Outcome.completed()
    score = None if failed else Score(value=0.75, accuracy=1.0)
    return Trajectory(
        env="e", task=Task(id="t", split="train", messages=()), seed=seed, outcome=outcome, score=score
    )


def test_without_a_control_the_reward_is_the_trajectorys() -> None:
    assert controlled(NONE, PENALISED, played(0)) == (0.75, 1.0)


def test_a_random_reward_is_a_fair_coin_that_the_trajectory_seeds() -> None:
    """Of 1,000 fair coins, 450 to 550 fall on one side in all but 1 of 600 cases; the seeds are fixed."""
    coins = [controlled(COIN, PENALISED, played(seed)) for seed in range(1000)]
    assert all(reward == accuracy and reward in (0.0, 1.0) for reward, accuracy in coins)
    assert 450 < sum(reward for reward, _ in coins) < 550
    assert coins == [controlled(COIN, PENALISED, played(seed)) for seed in range(1000)]


def test_missing_data_stays_missing() -> None:
    for control in (NONE, COIN, FORMAT, WRONG, ENTROPY, LENGTH, RewardSettings(false_positives=1.0)):
        assert all(math.isnan(x) for x in controlled(control, PENALISED, played(0, failed=True)))


@pytest.mark.parametrize("control", CONTROLS)
def test_no_control_reads_the_true_score(control: Any) -> None:
    trajectory: Any = sampled([-1.0, -0.5])
    trajectory.artifacts["control/wrong_label"] = [0.25, 1.0]
    trajectory.score = Forbidden()
    with pytest.raises(AssertionError, match="read the true"):
        controlled(NONE, PENALISED, trajectory)
    reward, success = controlled(RewardSettings(control=control), PENALISED, trajectory)
    assert math.isfinite(reward)
    assert math.isfinite(success)


def test_entropy_is_the_mean_log_prob_of_what_the_policy_sampled() -> None:
    """Over all turns, each token once; a nested episode of the policy has its own."""
    assert controlled(ENTROPY, PENALISED, sampled([-1.0, -2.0], [-3.0])) == (-2.0, -2.0)
    assert controlled(ENTROPY, PENALISED, sampled([-0.5, -0.5], role="verifier")) == (-0.5, -0.5)


def test_length_is_worth_the_same_for_each_halving() -> None:
    one, two, four = (controlled(LENGTH, PENALISED, sampled([-1.0], [-9.0] * n))[0] for n in (0, 1, 3))
    assert one == 0
    assert one - two == pytest.approx(two - four) == pytest.approx(math.log(2))
    assert controlled(LENGTH, PENALISED, sampled([-1.0]))[1] == one


@pytest.mark.parametrize("settings", [ENTROPY, LENGTH])
def test_an_episode_without_sampled_tokens_has_neither_entropy_nor_length(settings: RewardSettings) -> None:
    """Another policy played it, or the context was full at once: the shortest answer is not silence."""
    assert all(map(math.isnan, controlled(settings, PENALISED, played(0))))


@pytest.mark.parametrize("control", ["entropy", "length"])
def test_noise_is_refused_where_there_are_no_successes(control: Any) -> None:
    with pytest.raises(ValueError, match="has neither; set false_positives and false_negatives to 0"):
        RewardSettings(control=control, false_negatives=0.1)


@pytest.mark.parametrize(
    ("text", "metrics", "outcome", "reward"),
    [
        ("wrong", {}, Outcome.completed(), 1.0),
        ("", {}, Outcome.completed(), 0.0),
        ("wrong", {"tool_malformed": 1.0}, Outcome.completed(), 0.0),
        ("wrong", {"tool_errors": 1.0}, Outcome.completed(), 0.0),
        ("wrong", {}, Outcome.truncated("turns"), 0.0),
    ],
)
def test_format_asks_for_a_finished_episode_without_faults(
    text: str, metrics: dict[str, float], outcome: Outcome, reward: float
) -> None:
    """Right or wrong, and whatever the score."""
    trajectory = played(0)
    trajectory.outcome = outcome
    trajectory.turns.append(Turn(messages=(), action=Message(role="assistant", content=text), metrics=metrics))
    assert controlled(FORMAT, PENALISED, trajectory) == (reward, reward)


def test_a_call_is_well_formed_as_well() -> None:
    trajectory = played(0)
    action = Message(role="assistant", content="", tool_calls=(ToolCall(name="submit"),))
    trajectory.turns.append(Turn(messages=(), action=action))
    assert controlled(FORMAT, PENALISED, trajectory) == (1.0, 1.0)


@pytest.mark.parametrize("control", ["none", "random"])
def test_noise_has_the_rates_that_were_asked_for(control: Any) -> None:
    """3,000 trajectories: each rate within 0.03, more than three standard deviations; the seeds are fixed."""
    noisy = RewardSettings(control=control, false_positives=0.1, false_negatives=0.3)
    plain = RewardSettings(control=control)
    flips: dict[float, list[bool]] = {0.0: [], 1.0: []}
    for seed in range(3000):
        trajectory = played(seed)
        trajectory.score = Score(value=float(seed % 2), accuracy=float(seed % 2))
        success = controlled(plain, PENALISED, trajectory)[1]
        flips[success].append(controlled(noisy, PENALISED, trajectory)[1] != success)
    assert abs(sum(flips[0.0]) / len(flips[0.0]) - 0.1) < 0.03
    assert abs(sum(flips[1.0]) / len(flips[1.0]) - 0.3) < 0.03


def test_a_nested_episode_has_no_wrong_label_and_is_left_out() -> None:
    """Its true reward would tell what the control is to keep from training."""
    inner = Trajectory(
        env="v",
        task=Task(id="t", split="train", messages=()),
        role="verifier",
        outcome=Outcome.completed(),
        score=Score(value=1.0, accuracy=1.0),
    )
    assert all(map(math.isnan, controlled(WRONG, PENALISED, inner)))
    assert controlled(RewardSettings(), PENALISED, inner) == (1.0, 1.0)


async def test_a_wrong_label_pays_for_another_tasks_answer() -> None:
    env = Adder()
    right, other = env.task_list("train")[:2]
    assert right.reference != other.reference
    answers = {str(right.reference): 0.0, str(other.reference): 1.0}
    for answer, reward in answers.items():

        class Fixed(Adder):
            def gold(self, task: Task) -> list[Message]:
                return [Message(role="assistant", content=answer)]  # noqa: B023 - used within the round

        trajectory = await rollout(Fixed(), Expert(), right, name="sums", seed=0)
        await mislabel(env, PENALISED, trajectory, other)
        assert controlled(WRONG, PENALISED, trajectory) == (reward, reward)
        assert controlled(WRONG, PENALISED, from_json(Trajectory, to_json(trajectory))) == (reward, reward)
        assert trajectory.reward == 1 - reward, "what is recorded is the true reward"


@pytest.mark.parametrize(("policy", "reward"), [("penalise", 0.0), ("mask", math.nan), ("score", 1.0)])
async def test_a_wrong_label_pays_a_truncated_episode_by_the_recipes_policy(policy: str, reward: float) -> None:
    """As the true reward would be paid, or the control would differ from the run in more than its reward."""

    class Rated(Adder):
        async def score(self, trajectory: Trajectory) -> Score:
            right = Reward(name="right", function=lambda t: t.final_text == str(t.task.reference))
            return await Rubric(right).score(trajectory)

    env = Rated()
    task, other = env.task_list("train")[:2]
    said = Message(role="assistant", content=str(other.reference), cut=True)
    trajectory = await rollout(env, Script(said), task, name="sums", seed=0)
    truncated = TruncatedSettings.model_validate({"tokens": policy})
    await mislabel(env, truncated, trajectory, other)
    assert controlled(WRONG, truncated, trajectory)[0] == pytest.approx(reward, nan_ok=True)
