"""Questions about a world: a chain of relations from one entity to the answer."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from envgym.errors import DataError
from envgym_environments.search_qa.world import RELATIONS, SET_RELATIONS, RelationKind, World

__all__ = ["UNKNOWN", "Question", "QuestionKind", "draw_question"]

QuestionKind = Literal["single", "set", "unanswerable"]

UNKNOWN = "unknown"
"""The right answer if no document states the fact."""
_MAX_DRAWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with its answers and the entities that lead to them."""

    text: str
    answers: tuple[str, ...]
    """All members of a set, or the one answer."""
    path: tuple[str, ...]
    """The entities to look up, in order. [hops]"""
    facts: str
    """What is asked: the first entity, and the relations that lead from it to the answer."""


def draw_question(rng: random.Random, world: World, hops: int, kind: QuestionKind) -> Question:
    """Draw a question.

    Args:
        rng: source of randomness.
        world: the world to ask about.
        hops: number of facts that lead to the answer.
        kind: ``"single"``, ``"set"`` (the last relation holds several entities) or ``"unanswerable"`` (the last
            fact is withheld).

    Raises:
        DataError: 10,000 draws found no such question in this world.
    """
    for _ in range(_MAX_DRAWS):
        found = _walk(rng, world, hops, kind)
        if found is not None:
            return found
    raise DataError(f"no {kind} question of {hops} hops in this world; more documents or fewer hops would help")


def _walk(rng: random.Random, world: World, hops: int, kind: QuestionKind) -> Question | None:
    """Attempt one draw. No entity comes up twice, so that the question never holds its own answer."""
    source = rng.choice(RELATIONS).kind
    path = [rng.choice(world.names[source])]
    chain: list[RelationKind] = []
    for hop in range(hops):
        last = hop == hops - 1
        candidates = [r for r in (SET_RELATIONS if last and kind == "set" else RELATIONS) if r.kind == source]
        if not candidates:
            return None
        relation = rng.choice(candidates)
        chain.append(relation)
        values = world.facts[path[-1]].get(relation.name, ())
        if last:
            return _finish(path, chain, values, kind)
        if not values or values[0] in path:
            return None
        path.append(values[0])
        source = relation.target
    return None


def _finish(
    path: list[str], chain: list[RelationKind], values: tuple[str, ...], kind: QuestionKind
) -> Question | None:
    if (kind == "unanswerable") != (not values) or set(values) & set(path):
        return None
    wh = "Who" if chain[-1].target == "person" else "What"
    verb = "are" if kind == "set" else "is"
    steps = " of ".join(f"the {relation.name}" for relation in reversed(chain))
    return Question(
        text=f"{wh} {verb} {steps} of {path[0]}?",
        answers=values or (UNKNOWN,),
        path=tuple(path),
        facts=" > ".join([path[0], *(relation.name for relation in chain)]),
    )
