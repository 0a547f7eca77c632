"""Policies: anything that turns a conversation into a completion.

The interface, and the three that need no model: the environment's own scripted expert, an empty one and a
random one. A model in this process and one behind HTTP implement the same interface elsewhere.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass

from envgym.core import ChatEnv
from envgym.data import Message, Observation, Task, TurnTokens
from envgym.spaces import ActionSpace

__all__ = [
    "Completion",
    "ContextFull",
    "EmptyPolicy",
    "GoldPolicy",
    "Policy",
    "PolicySession",
    "RandomPolicy",
]


class ContextFull(Exception):
    """The conversation leaves the policy no room for another completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a policy did in one turn."""

    message: Message
    tokens: TurnTokens | None = None
    """Present when the policy runs a model whose tokens can be trained on."""


class PolicySession(abc.ABC):
    """A policy's side of one episode."""

    @abc.abstractmethod
    async def act(self, observation: Observation) -> Completion:
        """Choose the next action. ``observation`` holds only what is new.

        Raises:
            ContextFull: there is no room for another completion.
            PolicyError: the policy failed; the episode is missing data.
        """

    async def close(self) -> None:
        """Free what the session holds. Safe to call twice."""


class Policy(abc.ABC):
    """Opens one session per episode; sessions run concurrently."""

    @abc.abstractmethod
    def open(self, env: ChatEnv, task: Task, seed: int) -> PolicySession:
        """Begin an episode of ``task``. Equal seeds give equal draws."""

    async def close(self) -> None:
        """Free what the policy holds. Safe to call twice."""


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
