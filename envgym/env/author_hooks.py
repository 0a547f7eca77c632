"""What the author of an environment writes; ``ChatEnv`` does the rest.

Three levels of authoring, each a superset of the one before:

1. single turn: implement ``tasks`` and ``score``;
2. tools: mark methods with ``@tool``; calls are answered, a message without a call ends the episode;
3. full control: override ``respond``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Self

from envgym.env.tools import Tool, collect_tools, run_calls
from envgym.records import Message, Score, Split, Task, Trajectory

__all__ = ["AuthorHooks", "Reply"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An environment's answer to an action."""

    messages: tuple[Message, ...] = ()
    done: bool = False
    reward: float = 0.0
    """Per-turn reward; the trajectory's score comes on top at the end."""
    metrics: dict[str, float] = field(default_factory=dict)


class AuthorHooks:
    """The methods of an environment that may be overridden, with what they do by default."""

    tools: dict[str, Tool]

    def tasks(self, split: Split) -> Sequence[Task]:
        """Return the tasks of a split. Called once per split; may be lazy."""
        raise NotImplementedError(f"{type(self).__name__} must define tasks(split)")

    def score(self, trajectory: Trajectory) -> Score | Awaitable[Score]:
        """Score a finished trajectory, from its messages, task, artifacts and nested episodes alone.

        Stored trajectories are scored again; work that needs the live episode belongs in ``conclude``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define score(trajectory)")

    def score_group(self, trajectories: Sequence[Trajectory]) -> Sequence[Score] | Awaitable[Sequence[Score]]:
        """Score the trajectories of one task against each other: ranks, or a judge's preferences.

        Called in training, once a group's episodes are over; by default each keeps its score. Evaluation and
        re-scoring never call it: a rank within one policy's group says nothing about another policy.

        Args:
            trajectories: the ones that did not fail, in no particular order. No episode is under way, so
                ``self.services`` offers the judge and sandboxes, but plays no role.

        Returns:
            one score for each, in the order given.
        """
        return [trajectory.score for trajectory in trajectories if trajectory.score is not None]

    def gold(self, task: Task) -> Sequence[Message]:
        """Return the actions of a scripted expert, which score the maximum: proof that the task can be solved."""
        raise NotImplementedError(f"{type(self).__name__} must define gold(task)")

    def novice(self, task: Task) -> Sequence[Message]:
        """Return the actions of a scripted beginner with a bad habit, which costs it most of the tasks.

        Imitating beginners and experts makes a model that can do the task and mostly does not: a start that lacks
        judgement, as pretrained models do. Optional.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define novice(task)")

    async def start(self, task: Task) -> None:
        """Prepare an episode of ``task``. The base class has nothing to prepare."""

    async def finish(self) -> None:
        """Free the resources of ``start``; called once per episode, however it ended, even if ``start`` failed."""

    async def respond(self, action: Message) -> Reply:
        """Answer an action. By default: run its tool calls; a message without one is the final answer."""
        if not action.tool_calls:
            return Reply(done=True)
        messages, metrics = await run_calls(self.tools, action.tool_calls)
        return Reply(messages=messages, metrics=metrics)

    async def conclude(self) -> None:
        """Do work that the score depends on, such as nested episodes; called once the episode is over."""

    def make_tools(self) -> dict[str, Tool]:
        """Return the tools on offer under ``self.config``: by default, every method that ``@tool`` marked."""
        return collect_tools(self)

    def share(self, other: Self) -> None:
        """Reuse costly state, besides the tasks, of another instance with the same settings."""
