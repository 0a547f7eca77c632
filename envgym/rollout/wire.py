"""What travels between a run and the workers that play its episodes: records, as JSON text.

A call answers with a ``Round``: the observations that the episode waits for, or its end. The caller lets its
policies act and calls again with ``PlayerAnswers``, so that an episode costs one call a turn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from envgym.records import Message, Observation, Task, Trajectory, TurnTokens
from envgym.rollout.mix import MixEntry

__all__ = ["CALLER", "PlayerAnswer", "PlayerAnswers", "Ask", "EpisodeSpec", "PlayerReference", "Round"]

PlayerReference: TypeAlias = Literal["caller", "gold", "novice"]
"""Who acts: the caller's policy, turn by turn, or a script of the environment's, which plays beside it."""
CALLER: PlayerReference = "caller"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSpec:
    """One episode to play, whole: any process that has the environment's package can play it."""

    entry: MixEntry
    """The environment, its name in the record, and its settings."""
    task: Task
    seed: int
    deadline: float
    """Seconds for boot, turns and scoring together."""
    policy: PlayerReference = CALLER
    """Plays the episode, and the roles that ``roles`` leaves out."""
    roles: dict[str, PlayerReference] = field(default_factory=dict)
    """Players of roles in nested episodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """An observation that a player of the caller's has to answer."""

    session: int
    """Number of the conversation: an episode has one, and one more for each nested episode."""
    role: str
    """Role whose player is meant; ``""`` is the run's policy."""
    seed: int
    """Seed to open the player's session with."""
    observation: Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayerAnswer:
    """A player's answer: a message, no room for one, or a failure."""

    session: int
    message: Message | None = None
    tokens: TurnTokens | None = None
    full: bool = False
    """The context leaves no room for another completion."""
    error: str = ""
    """Message of the ``PolicyError`` that the player raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayerAnswers:
    """The answers to every ask of a round."""

    answers: tuple[PlayerAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What an episode waits for, once all of it waits."""

    asks: tuple[Ask, ...] = ()
    closed: tuple[int, ...] = ()
    """Sessions that came to their end since the last round."""
    trajectory: Trajectory | None = None
    """The record, if the episode is over."""
    refused: str = ""
    """Message of the ``UserError`` that ended it instead."""
    unknown: bool = False
    """The worker does not know the episode: it was started anew since."""
