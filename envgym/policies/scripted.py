"""Players that need no model: scripted, empty and random policies, and the environment's expert."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from envgym.env.chat_env import ChatEnv
from envgym.env.spaces import ActionSpace
from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.records import Message, Observation, Task, ToolSpec

__all__ = ["EmptyPolicy", "Expert", "Novice", "Player", "RandomPolicy", "Script"]


class Expert:
    """An environment's own scripted expert. It reads the task's hidden reference, so it is not a policy."""

    def open(self, env: ChatEnv, task: Task) -> PolicySession:
        """Begin an episode of ``task``.

        Raises:
            NotImplementedError: the environment has no expert.
        """
        return _Scripted(env.gold(task))

    async def close(self) -> None:
        """Do nothing: the expert holds no resources."""


class Novice(Expert):
    """An environment's own scripted beginner, who has a bad habit. It reads the task's reference, too."""

    def open(self, env: ChatEnv, task: Task) -> PolicySession:
        """Begin an episode of ``task``.

        Raises:
            NotImplementedError: the environment has no beginner.
        """
        return _Scripted(env.novice(task))


Player: TypeAlias = Policy | Expert
"""Anything that can act in an episode; ``envgym.rollout`` tells the two apart."""


class EmptyPolicy(Policy):
    """Says nothing, which shows the reward that an environment gives away."""

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        """Begin an episode."""
        return _Scripted(())


class RandomPolicy(Policy):
    """Draws actions from the action space of the tools on offer."""

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        """Begin an episode."""
        return _Random(tools, seed)


class Script(Policy):
    """Says the same messages in every episode, then empty ones.

    Args:
        messages: the actions, in order.
    """

    def __init__(self, *messages: Message) -> None:
        super().__init__()
        self._messages = messages

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        """Begin an episode."""
        return _Scripted(self._messages)


class _Scripted(PolicySession):
    def __init__(self, actions: Iterable[Message]) -> None:
        self._actions = iter(actions)

    async def act(self, observation: Observation) -> Completion:
        return Completion(message=next(self._actions, Message(role="assistant", content="")))


class _Random(PolicySession):
    def __init__(self, tools: Sequence[ToolSpec], seed: int) -> None:
        self._space = ActionSpace(tuple(tools), seed=seed)

    async def act(self, observation: Observation) -> Completion:
        return Completion(message=self._space.sample())
