"""The record of the episode that an environment plays."""

from __future__ import annotations

import time
from typing import Any

from envgym.env.episode_services import EpisodeHost
from envgym.errors import UnknownNameError, UserError
from envgym.records import (
    Message,
    Observation,
    Outcome,
    OutcomeKind,
    Score,
    Task,
    Trajectory,
    Turn,
    TurnTokens,
)

__all__ = ["EpisodeState", "ResetResult", "StepResult", "checked_options"]

ResetResult = tuple[Observation, dict[str, Any]]
StepResult = tuple[Observation, float, bool, bool, dict[str, Any]]


class EpisodeState:
    """An episode's record, and the messages that the policy has not seen yet.

    Args:
        trajectory: filled as the episode goes on.
    """

    def __init__(self, trajectory: Trajectory) -> None:
        self.trajectory = trajectory
        self.pending = trajectory.task.messages
        self._started = time.monotonic()

    def observe(self) -> Observation:
        """Return the policy's next observation."""
        return Observation(messages=self.pending, tools=self.trajectory.tools)

    def conversation(self) -> tuple[Message, ...]:
        """Return every message so far, those included that the policy has not seen yet."""
        over = self.trajectory.outcome.kind is not OutcomeKind.RUNNING
        return self.trajectory.messages + (() if over else self.pending)

    def begin_turn(self, action: Message, tokens: TurnTokens | None) -> Turn:
        """Record an action that is yet to be answered."""
        turn = Turn(messages=self.pending, action=action, tokens=tokens)
        self.trajectory.turns.append(turn)
        self.pending = ()
        return turn

    def end(self, outcome: Outcome) -> None:
        """Record the outcome; pending messages close the conversation."""
        self.trajectory.outcome = outcome
        self.trajectory.closing = self.pending

    def result(self, score: Score, turn: Turn | None) -> StepResult:
        """Record the score of an ended episode, and return Gymnasium's last step.

        Args:
            score: the score of the whole episode.
            turn: the last turn, if an action ended the episode.
        """
        trajectory = self.trajectory
        trajectory.score = score
        trajectory.seconds = time.monotonic() - self._started
        completed = trajectory.outcome.reason == ""
        reward, metrics = (turn.reward, turn.metrics) if turn else (0.0, {})
        info = {"score": score, "outcome": trajectory.outcome, **metrics}
        return self.observe(), float(score.value + reward), completed, not completed, info


def checked_options(options: dict[str, Any] | None) -> tuple[EpisodeHost | None, Task | None]:
    """Return the host and the task of ``reset(options=...)``.

    Raises:
        UserError: an option that is not known, or a ``task`` that is none.
    """
    given = dict(options or {})
    host, task = given.pop("host", None), given.pop("task", None)
    for name in given:
        raise UnknownNameError("reset option", str(name), ["task"])
    if task is not None and not isinstance(task, Task):
        raise UserError(f"options['task'] must be a Task, e.g. env.task_list('train')[0]; got {task!r:.80}")
    return host, task
