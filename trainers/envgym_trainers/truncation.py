"""What training makes of an episode that a limit cut, by the limit: tokens of a turn, turns, or the context.

``mask`` is the overlong filtering of DAPO (arXiv 2503.14476, section 3.4), which masks the loss of a truncated
sample. Here the sample leaves the group's baseline as well, as missing data does: its reward would still move the
advantages of the others. TRL's ``mask_truncated_completions`` keeps it in the baseline.

Evaluation never reads these settings: it reports the score that the environment gives.
"""

from __future__ import annotations

import enum

import pydantic

from envgym.config import Section
from envgym.records import OutcomeKind, Score, Trajectory

__all__ = ["Truncated", "TruncatedSettings", "masked", "score_in_training"]


class Truncated(enum.StrEnum):
    """What training makes of a truncated episode."""

    PENALISE = "penalise"
    MASK = "mask"
    SCORE = "score"


_MEANINGS = (
    "penalise: the environment's score of a truncated episode, by default the rubric's floor; mask: neither "
    "trained on nor in the baseline; score: what it would be worth had it ended there"
)


class TruncatedSettings(Section):
    """What training makes of a truncated episode, by the limit that cut it; evaluation is not changed."""

    tokens: Truncated = pydantic.Field(
        default=Truncated.PENALISE, description=f"a turn was cut at sampling.max_tokens. {_MEANINGS}"
    )
    turns: Truncated = pydantic.Field(
        default=Truncated.PENALISE, description="the episode is not over after the environment's max_turns"
    )
    context: Truncated = pydantic.Field(default=Truncated.PENALISE, description="no room is left in model.context")

    def policy(self, trajectory: Trajectory) -> Truncated | None:
        """Return the policy for the limit that cut an episode; ``None`` if none did."""
        if trajectory.outcome.kind is not OutcomeKind.TRUNCATED:
            return None
        chosen: Truncated = getattr(self, trajectory.outcome.reason)
        return chosen


def masked(settings: TruncatedSettings, trajectory: Trajectory) -> bool:
    """Return whether an episode takes no part in training because a limit cut it."""
    return settings.policy(trajectory) is Truncated.MASK


def score_in_training(settings: TruncatedSettings, trajectory: Trajectory) -> Score | None:
    """Return the score that training uses; ``None`` if the episode takes no part: masked, failed or not scored.

    Under ``score``, an environment that has no other score for a truncated episode keeps the one it gave.
    """
    if trajectory.failed or trajectory.score is None or masked(settings, trajectory):
        return None
    if settings.policy(trajectory) is Truncated.SCORE:
        return trajectory.score.as_it_stands or trajectory.score
    return trajectory.score
