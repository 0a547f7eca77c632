"""Mixes: weighted sets of environments, drawn with exact quotas and in a reproducible order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pydantic

from envgym.config import Section
from envgym.env.chat_env import ChatEnv
from envgym.env.registration import environments
from envgym.env.services import Services
from envgym.errors import RecipeError
from envgym.plugins.registry import short_name
from envgym.seeding import derive_rng

__all__ = ["Mix", "MixEntry"]


class MixEntry(Section):
    """One environment of a mix."""

    env: str = pydantic.Field(description="environment id, or package.module:Class", examples=["math_problems-v1"])
    name: str = pydantic.Field(default="", description="name in metrics; the id without its version by default")
    weight: float = pydantic.Field(default=1.0, ge=0, description="share of the groups; 0 is evaluation only")
    settings: dict[str, Any] = pydantic.Field(default_factory=dict, description="settings of the environment")

    @pydantic.field_validator("settings")
    @classmethod
    def _belong_to_the_environment(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if taken := {"split", "services"} & settings.keys():
            raise ValueError(f"{', '.join(sorted(taken))} is not a setting: the run chooses it")
        return settings

    @property
    def label(self) -> str:
        """The entry's name in metrics and reports."""
        return self.name or short_name(self.env)

    def make(self, services: Services) -> ChatEnv:
        """Make one instance of the environment.

        Raises:
            UserError: no such environment or setting.
        """
        env: ChatEnv = environments.load(self.env)(services=services, **self.settings)
        return env


class Mix:
    """Draws training tasks. Its small, serialisable state lets a resumed run draw the same tasks.

    Args:
        entries: the environments; labels must differ and at least one weight be positive.
        sizes: number of training tasks of each entry, by label.
        seed: fixes the order of tasks.

    Raises:
        RecipeError: duplicate labels, no positive weight, or no task where the weight is positive.
    """

    def __init__(self, entries: Sequence[MixEntry], sizes: Mapping[str, int], seed: int) -> None:
        labels = [e.label for e in entries]
        if len(set(labels)) != len(labels):
            raise RecipeError(f"mix: names must differ, got {labels}; set name = … on the repeated ones")
        if not any(e.weight > 0 for e in entries):
            raise RecipeError("mix: at least one environment needs a positive weight")
        if empty := [e.label for e in entries if e.weight > 0 and sizes[e.label] < 1]:
            raise RecipeError(f"mix: {', '.join(empty)}: no training task")
        self.entries = {e.label: e for e in entries}
        self._sizes = sizes
        self._seed = seed
        self._owed = dict.fromkeys(labels, 0.0)
        self._drawn = dict.fromkeys(labels, 0)
        self._orders: dict[str, Iterator[int]] = {}

    def quotas(self, total: int) -> dict[str, int]:
        """Split ``total`` draws by weight: each goes to the entry owed most, debts of earlier calls included."""
        weight = sum(e.weight for e in self.entries.values())
        for label, entry in self.entries.items():
            self._owed[label] += total * entry.weight / weight
        counts = dict.fromkeys(self.entries, 0)
        for _ in range(total):
            label = max(self._owed, key=self._owed.__getitem__)
            counts[label] += 1
            self._owed[label] -= 1
        return counts

    def draws(self, label: str) -> int:
        """Return the number of tasks drawn from the entry so far; it tells two visits to one task apart."""
        return self._drawn[label]

    def draw(self, label: str) -> int:
        """Return the index of the entry's next task: every task once, in a new random order each epoch."""
        size = self._sizes[label]
        epoch, place = divmod(self._drawn[label], size)
        self._drawn[label] += 1
        if place == 0 or label not in self._orders:
            order = _shuffled(size, derive_rng("epoch", self._seed, label, epoch))
            self._orders[label] = itertools.islice(order, place, None)
        return next(self._orders[label])

    def state(self) -> dict[str, dict[str, float]]:
        """Return what ``restore`` needs."""
        return {"owed": dict(self._owed), "drawn": {k: float(v) for k, v in self._drawn.items()}}

    def restore(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Continue from ``state()`` of an earlier run."""
        self._owed = {label: float(state["owed"].get(label, 0.0)) for label in self.entries}
        self._drawn = {label: int(state["drawn"].get(label, 0)) for label in self.entries}
        self._orders.clear()


def _shuffled(size: int, rng: random.Random) -> Iterator[int]:
    """Yield ``range(size)`` in a uniformly random order.

    Durstenfeld's shuffle (1964, Algorithm 235) that holds only the places that have moved: memory grows with the
    draws, not with the size, for a procedural environment may have any number of tasks.
    """
    moved: dict[int, int] = {}
    for last in reversed(range(size)):
        place = rng.randrange(last + 1)
        yield moved.get(place, place)
        moved[place] = moved.pop(last, last)
