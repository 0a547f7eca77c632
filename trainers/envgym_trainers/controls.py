"""Control rewards: train on rewards that say little or nothing about the task (arXiv 2506.10947).

A control replaces the reward in training only, the unshaped success that dynamic sampling uses included;
evaluation never sees it. Any gain of a run under a control is not due to the reward. No control reads the score
of the trajectory: ``wrong_label`` reads the one that another task's reference gives.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, Self

import pydantic

from envgym.config import Section
from envgym.env.chat_env import ChatEnv
from envgym.records import OutcomeKind, Score, Task, Trajectory
from envgym.seeding import derive_rng
from envgym_trainers.truncation import TruncatedSettings, score_in_training

__all__ = ["RewardSettings", "controlled", "mislabel"]

_LABEL = "control/wrong_label"
_GRADED = ("entropy", "length")


class RewardSettings(Section):
    """The reward used in training."""

    control: Literal["none", "entropy", "length", "random", "format", "wrong_label"] = pydantic.Field(
        default="none",
        description="entropy: the policy's own certainty; length: shortness; random: a coin; format: a finished "
        "episode without a malformed or failed call; wrong_label: the score that another task's reference gives",
    )
    false_positives: float = pydantic.Field(
        default=0.0, ge=0, le=1, description="share of failures that are rewarded as successes (rho 0)"
    )
    false_negatives: float = pydantic.Field(
        default=0.0, ge=0, le=1, description="share of successes that are rewarded as failures (rho 1)"
    )

    @pydantic.model_validator(mode="after")
    def _noise_needs_successes(self) -> Self:
        if self.control in _GRADED and (self.false_positives or self.false_negatives):
            raise ValueError(
                f"noise swaps successes and failures, and the control {self.control!r} has neither; "
                "set false_positives and false_negatives to 0, or choose another control"
            )
        return self


def controlled(
    settings: RewardSettings, truncated: TruncatedSettings, trajectory: Trajectory
) -> tuple[float, float]:
    """Return reward and unshaped success of a trajectory under a control; both are NaN where it takes no part.

    That is where it is missing data, or was truncated and is masked.

    Coins and noise are seeded by the trajectory. Noise is applied last, to successes (accuracy 1) and failures. A
    nested episode has no score under another task's reference, so under ``wrong_label`` it is missing, as is one
    that ``mislabel`` could not score; so is an episode in which the policy sampled nothing under ``entropy`` and
    ``length``.
    """
    score = score_in_training(truncated, trajectory)
    if score is None:
        return float("nan"), float("nan")
    reward, success = _reward(settings, trajectory, score)
    share = settings.false_negatives if success == 1 else settings.false_positives
    if share and _draw("noise", trajectory) < share:
        return (0.0, 0.0) if success == 1 else (1.0, 1.0)
    return reward, success


def _reward(settings: RewardSettings, trajectory: Trajectory, score: Score) -> tuple[float, float]:
    match settings.control:
        case "entropy":
            value = _certainty(trajectory)
            return value, value
        case "length":
            value = _shortness(trajectory)
            return value, value
        case "random":
            value = float(_draw("control", trajectory) < 0.5)
            return value, value
        case "format":
            value = float(_is_well_formed(trajectory))
            return value, value
        case "wrong_label":
            kept: Any = trajectory.artifacts.get(_LABEL, (math.nan, math.nan))
            return float(kept[0]), float(kept[1])
        case "none":
            return score.value + sum(turn.reward for turn in trajectory.turns), score.accuracy


async def mislabel(env: ChatEnv, truncated: TruncatedSettings, trajectory: Trajectory, other: Task) -> None:
    """Store with the trajectory its score in training under the reference of ``other``, if it takes part.

    Raises:
        EpisodeError: the verifier failed.
    """
    task = dataclasses.replace(trajectory.task, reference=other.reference)
    relabelled = dataclasses.replace(trajectory, task=task)
    score = score_in_training(truncated, dataclasses.replace(relabelled, score=await env.rescore(relabelled)))
    if score is not None:
        trajectory.artifacts[_LABEL] = [score.value, score.accuracy]


def _certainty(trajectory: Trajectory) -> float:
    """Return the mean log-prob of the sampled tokens, as the engine reported them.

    The expectation of log p under the policy is minus its entropy, and grad E[log p] = E[log p · grad log p]: a
    policy gradient on it lowers the entropy. "EM-RL" of arXiv 2505.15134, but with the mean over tokens instead of
    the sum, which would pay for brevity as well.
    """
    logprobs = [value for turn in trajectory.turns if turn.tokens for value in turn.tokens.logprobs]
    return sum(logprobs) / len(logprobs) if logprobs else math.nan


def _shortness(trajectory: Trajectory) -> float:
    """Return minus the logarithm of the number of sampled tokens.

    Each halving is worth the same, so that neither one long episode outweighs the rest of its group, nor does the
    size of the reward upset an objective that does not normalise it.
    """
    tokens = trajectory.sampled_tokens
    return -math.log(tokens) if tokens else math.nan


def _is_well_formed(trajectory: Trajectory) -> bool:
    faults = sum(t.metrics.get("tool_malformed", 0) + t.metrics.get("tool_errors", 0) for t in trajectory.turns)
    said = any(t.action.content.strip() or t.action.tool_calls for t in trajectory.turns[-1:])
    return trajectory.outcome.kind is OutcomeKind.COMPLETED and not faults and said


def _draw(purpose: str, trajectory: Trajectory) -> float:
    return derive_rng(purpose, trajectory.env, trajectory.task.id, trajectory.seed).random()
