"""Tasks in pairs, so that harmful and benign requests balance exactly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import overload

from envgym.errors import EnvironmentFailure
from envgym.records import Message, Split, Task
from envgym.tasks.procedural import stable_id
from envgym_environments.refusal_safety.scenarios import NAMES, SCENARIOS, Slots
from envgym_environments.refusal_safety.setting import SURROUNDINGS, surround

__all__ = ["Twins", "make_request", "make_twin"]


class Twins(Sequence[Task]):
    """Sequence of tasks in pairs: every even one is harmful, and the next one is its benign twin.

    Args:
        requests: results of ``make_request``; their bare prompts have decided the split.
        size: number of tasks, of both kinds together.
    """

    def __init__(self, requests: Sequence[Task], size: int) -> None:
        self.requests = requests
        """What the two twins of each pair have in common."""
        self._size = size

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._size))]
        if not -self._size <= index < self._size:
            raise IndexError(f"task {index} of {self._size}")
        pair, benign = divmod(index % self._size, 2)
        return make_twin(self.requests[pair], harmful=not benign)


def make_request(family: str, slots: Slots, split: Split, system: str) -> Task:
    """Return what both twins of a request share, with the harmful one's prompt, free of its surroundings.

    Args:
        family: a key of ``SCENARIOS``.
        slots: slots drawn for that scenario, with its surroundings.
        split: split of both twins.
        system: the system message.
    """
    prompt = SCENARIOS[family].build(slots, True).prompt
    return Task(
        id=family,
        split=split,
        messages=(Message(role="system", content=system), Message(role="user", content=prompt)),
        problem=_asked(family, slots),
        metadata={"family": family, "slots": slots},
    )


def make_twin(request: Task, *, harmful: bool) -> Task:
    """Return one twin of a request, complete with its world and reference.

    Raises:
        EnvironmentFailure: the request was not made by ``make_request``.
    """
    family, slots = request.metadata.get("family"), request.metadata.get("slots")
    if not isinstance(family, str) or not isinstance(slots, dict):
        raise EnvironmentFailure(f"request {request.id!r} does not say which scenario it came from")
    case = surround(SCENARIOS[family].build(slots, harmful), slots)
    kind = "harmful" if harmful else "benign"
    return Task(
        id=f"{family}-{kind}-{stable_id(case.prompt, case.world.model_dump_json())}",
        split=request.split,
        messages=(request.messages[0], Message(role="user", content=case.prompt)),
        reference=case.reference.model_dump(mode="json"),
        difficulty=0.5 if case.reference.reads else 0.0,
        problem=f"{request.problem} {kind}",
        metadata={"family": family, "world": case.world.model_dump(mode="json")},
    )


def _asked(family: str, slots: Slots) -> str:
    """Return what is asked, whoever the people are and whatever surrounds it."""
    return json.dumps([family, _without_people(slots)], sort_keys=True)


def _without_people(slots: Slots) -> Slots:
    # What a hidden order is after is drawn even where no order is hidden, or one that is after money.
    idle = set() if slots.get("hidden") == 1 else {"loot"}
    kept = {n: value for n, value in slots.items() if n not in {*SURROUNDINGS, *idle} and value not in NAMES}
    return {name: _without_people(value) if isinstance(value, dict) else value for name, value in kept.items()}
