"""Policies that need no model: the environment's own scripted expert, an empty one and a random one."""

from __future__ import annotations

from collections.abc import Iterator

from envgym.env.chat_env import ChatEnv
from envgym.env.spaces import ActionSpace
from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.records import Message, Observation, Task

__all__ = ["EmptyPolicy", "GoldPolicy", "RandomPolicy", "Script"]


class GoldPolicy(Policy):
    """Plays the environment's scripted expert."""

    def open(self, env: ChatEnv, task: Task, seed: int) -> PolicySession:
        """Begin an episode."""
        return _Scripted(iter(env.gold(task)))


class EmptyPolicy(Policy):
    """Says nothing: what an environment gives away for free."""

    def open(self, env: ChatEnv, task: Task, seed: int) -> PolicySession:
        """Begin an episode."""
        return _Scripted(iter(()))


class RandomPolicy(Policy):
    """Draws actions from the environment's action space."""

    def open(self, env: ChatEnv, task: Task, seed: int) -> PolicySession:
        """Begin an episode."""
        return _Random(env, seed)


class Script(Policy):
    """Says the same messages in every episode, and nothing once they are used up.

    Args:
        messages: the actions, in order.
    """

    def __init__(self, *messages: Message) -> None:
        super().__init__()
        self._messages = messages

    def open(self, env: ChatEnv, task: Task, seed: int) -> PolicySession:
        """Begin an episode."""
        return _Scripted(iter(self._messages))


class _Scripted(PolicySession):
    def __init__(self, actions: Iterator[Message]) -> None:
        self._actions = actions

    async def act(self, observation: Observation) -> Completion:
        return Completion(message=next(self._actions, Message(role="assistant", content="")))


class _Random(PolicySession):
    def __init__(self, env: ChatEnv, seed: int) -> None:
        self._space = ActionSpace(tuple(t.spec for t in env.tools.values()), seed=seed)

    async def act(self, observation: Observation) -> Completion:
        return Completion(message=self._space.sample())
