"""Policies: anything that turns a conversation into a completion."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envgym.plugins.base import Plugin
from envgym.plugins.registry import Registry
from envgym.records import Message, Observation, ToolSpec, TurnTokens

__all__ = ["Completion", "ContextFull", "Policy", "PolicySession", "policies"]


class ContextFull(Exception):
    """The conversation leaves the policy no room for another completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A policy's action in one turn."""

    message: Message
    tokens: TurnTokens | None = None
    """Present if the policy runs a model whose tokens can be trained on."""


class PolicySession(abc.ABC):
    """A policy in one episode."""

    @abc.abstractmethod
    async def act(self, observation: Observation) -> Completion:
        """Choose the next action. ``observation`` holds only the new messages.

        Raises:
            ContextFull: there is no room for another completion.
            PolicyError: the policy failed; the episode is missing data.
        """

    async def close(self) -> None:
        """Free what the session holds. Safe to call twice."""


class Policy(Plugin, abc.ABC):
    """Opens one session per episode; sessions run concurrently.

    A policy receives tools, a seed and observations, but never the task, whose reference is hidden, nor the
    environment.
    """

    @abc.abstractmethod
    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        """Begin an episode.

        Args:
            tools: the tools on offer in every turn.
            seed: equal seeds give equal draws. The environment's own draws cannot be derived from it.
        """

    @property
    def limits(self) -> Mapping[str, int]:
        """Limits in tokens that it samples under, ``context`` and ``max_tokens``, as far as it knows them."""
        return {}

    async def close(self) -> None:
        """Free what the policy holds. Safe to call twice."""


policies: Registry[Policy] = Registry("policy", "envgym.policies", "envgym.policies.interface:Policy")
"""Every policy that is installed or registered."""
