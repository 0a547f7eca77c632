"""Fictional worlds: people, firms, towns and books, their relations, and a document about each.

Nothing in a world is true, so no model knows it from its training; equal settings make equal worlds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envgym.seeding import derive_rng

__all__ = ["RELATIONS", "SET_RELATIONS", "Document", "RelationKind", "World", "make_world"]

Facts = Mapping[str, Mapping[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document of the search engine."""

    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationKind:
    """A relation's name in questions, the kinds it joins, and its sentence in documents."""

    name: str
    kind: str
    target: str
    phrase: str


def _relation(name: str, kind: str, target: str, phrase: str) -> RelationKind:
    return RelationKind(name=name, kind=kind, target=target, phrase=phrase)


RELATIONS: tuple[RelationKind, ...] = (
    _relation("home", "person", "town", "lives in"),
    _relation("employer", "person", "firm", "works for"),
    _relation("teacher", "person", "person", "learned from"),
    _relation("seat", "firm", "town", "sits in"),
    _relation("head", "firm", "person", "is led by"),
    _relation("region", "town", "region", "lies in"),
    _relation("mayor", "town", "person", "is run by"),
    _relation("author", "book", "person", "was written by"),
    _relation("setting", "book", "town", "is set in"),
)
"""Each entity has exactly one of each relation of its kind, unless facts are withheld."""

SET_RELATIONS: tuple[RelationKind, ...] = (
    _relation("staff", "firm", "person", "employs"),
    _relation("books", "person", "book", "wrote"),
)
"""Inverses of ``employer`` and ``author``, which hold any number of entities."""
_INVERSE = {"staff": "employer", "books": "author"}

_SHARES = {"person": 0.4, "firm": 0.2, "town": 0.15, "book": 0.25}
_ENDINGS = {"given": "", "family": "n", "firm": "x", "town": "l", "region": "s", "noun": "m"}
_SYLLABLES = tuple(c + v for c in "bdfklmrt" for v in "aeiou")
_ADJECTIVES = ("Blue", "Cold", "Dark", "Gold", "Gray", "High", "Long", "Lost", "Old", "Pale", "Red", "Wild")
_NOUNS = ("Bird", "Boat", "Door", "Fire", "Gate", "Hill", "Lake", "Lamp", "Moon", "Road", "Rose", "Star")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Entities, facts and documents of a world."""

    names: Mapping[str, Sequence[str]]
    """Entities by kind."""
    facts: Facts
    """Values by entity and relation; a withheld fact is absent."""
    documents: Sequence[Document]


def make_world(
    seed: int, documents: int, *, set_relations: bool = False, withheld: float = 0.0, distractors: int = 0
) -> World:
    """Make a world.

    Args:
        seed: identifies the world.
        documents: number of entities, and so of documents about them.
        set_relations: let documents also list staff and books.
        withheld: share of facts that no document states.
        distractors: number of further documents, which mention two entities and answer nothing.
    """
    rng = derive_rng("world", seed, documents)
    names = _names(rng, documents)
    facts: dict[str, dict[str, tuple[str, ...]]] = {
        entity: {
            r.name: (_other(rng, names[r.target], entity),)
            for r in RELATIONS
            if r.kind == kind and (withheld == 0 or rng.random() >= withheld)
        }
        for kind in _SHARES
        for entity in names[kind]
    }
    if set_relations:
        _add_inverses(facts)
    relations = {r.name: r for r in (*RELATIONS, *SET_RELATIONS)}
    written = [_describe(entity, facts[entity], relations) for entity in facts]
    notes = _notes(rng, names, distractors)
    return World(names=names, facts=facts, documents=(*written, *notes))


def _other(rng: random.Random, candidates: Sequence[str], entity: str) -> str:
    while (value := rng.choice(candidates)) == entity:
        pass
    return value


def _add_inverses(facts: dict[str, dict[str, tuple[str, ...]]]) -> None:
    for inverse, forward in _INVERSE.items():
        for entity in list(facts):
            for value in facts[entity].get(forward, ()):
                facts[value][inverse] = (*facts[value].get(inverse, ()), entity)


def _describe(
    entity: str, facts: Mapping[str, tuple[str, ...]], relations: Mapping[str, RelationKind]
) -> Document:
    phrases = [f"{relations[name].phrase} {_list(values)}" for name, values in facts.items()]
    return Document(title=entity, text=f"{entity} {_list(phrases) or 'is little known'}.")


def _notes(rng: random.Random, names: Mapping[str, Sequence[str]], count: int) -> list[Document]:
    others = [*names["person"], *names["firm"], *names["town"]]
    verbs = ("once saw", "has heard of", "wants to see", "does not like")
    return [
        Document(
            title=f"Note {number}",
            text=f"{rng.choice(names['person'])} {rng.choice(verbs)} {rng.choice(others)}.",
        )
        for number in range(1, count + 1)
    ]


def _list(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _names(rng: random.Random, documents: int) -> dict[str, list[str]]:
    counts = {kind: max(3, round(share * documents)) for kind, share in _SHARES.items()}
    # About four times as many full names as people, so that several people share most name parts.
    parts = int(2 * counts["person"] ** 0.5) + 2
    given, family = _words(rng, "given", parts), _words(rng, "family", parts)
    return {
        "person": rng.sample([f"{g} {f}" for g in given for f in family], counts["person"]),
        "firm": _words(rng, "firm", counts["firm"]),
        "town": _words(rng, "town", counts["town"]),
        "region": _words(rng, "region", max(30, counts["town"] // 2)),
        "book": _titles(rng, counts["book"]),
    }


def _words(rng: random.Random, kind: str, count: int) -> list[str]:
    """Make ``count`` different words of two syllables, or more if needed; each kind has its ending."""
    length = 2
    while len(_SYLLABLES) ** length < 2 * count:
        length += 1
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(rng.choice(_SYLLABLES) for _ in range(length)).capitalize() + _ENDINGS[kind]] = None
    return list(words)


def _titles(rng: random.Random, count: int) -> list[str]:
    """Make book titles; made-up nouns where the plain ones do not suffice. No two titles hold the same words."""
    missing = -(-count // len(_ADJECTIVES)) - len(_NOUNS)
    nouns = [*_NOUNS, *_words(rng, "noun", max(0, missing))]
    return rng.sample([f"The {adjective} {noun}" for adjective in _ADJECTIVES for noun in nouns], count)
