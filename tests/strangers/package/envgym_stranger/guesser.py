"""A policy without a model."""

from __future__ import annotations

import random
from collections.abc import Sequence

from envgym import Completion, Message, Observation, Policy, PolicySession, ToolSpec


class Guesser(Policy):
    """Guesses a number."""

    class Config(Policy.Config):
        """Settings of ``Guesser``."""

        highest: int = 9

    config: Config

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        """Begin an episode."""
        return _Session(random.Random(seed), self.config.highest)


class _Session(PolicySession):
    def __init__(self, rng: random.Random, highest: int) -> None:
        self._rng = rng
        self._highest = highest

    async def act(self, observation: Observation) -> Completion:
        guess = str(self._rng.randint(0, self._highest))
        return Completion(message=Message(role="assistant", content=guess))
