"""Immutable trees that answers are read into. Nothing here is evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

__all__ = [
    "Add",
    "FunctionCall",
    "Const",
    "Mul",
    "Num",
    "Percent",
    "Pow",
    "Relation",
    "Series",
    "Sym",
    "Tree",
    "Words",
    "children",
    "divide",
    "negate",
    "walk",
]


@dataclass(frozen=True, slots=True)
class Num:
    """A non-negative rational literal."""

    value: Fraction
    decimals: int | None = None
    """Digits after the point if it was written as a terminating decimal."""


@dataclass(frozen=True, slots=True)
class Sym:
    """A variable or a unit; as symbols, different units are unequal by algebra."""

    name: str
    unit: bool = False


@dataclass(frozen=True, slots=True)
class Const:
    """``pi``, ``e``, ``i`` or ``inf``."""

    name: str


@dataclass(frozen=True, slots=True)
class Add:
    """A sum."""

    terms: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Mul:
    """A product."""

    factors: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Pow:
    """A power; a quotient is a power of -1."""

    base: Tree
    exponent: Tree


@dataclass(frozen=True, slots=True)
class Percent:
    """A value written with a percent sign."""

    value: Tree


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function of scalars: ``sin``, ``root`` (radicand, index), ``log`` (argument[, base]), ``pm`` ..."""

    name: str
    arguments: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """Several parts with their brackets.

    ``kind`` is the bracket pair for tuples and intervals (``()``, ``[)``, ``<>`` ...), ``{}`` for a set,
    ``,`` for a bare list, ``:`` for a ratio, ``cup`` for a union, ``matrix`` and ``row``.
    """

    kind: str
    items: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """``sides[0] signs[0] sides[1] ...`` with signs among ``= != < <= > >= in``."""

    sides: tuple[Tree, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """An answer in words, case-folded."""

    text: str


Tree = Num | Sym | Const | Add | Mul | Pow | Percent | FunctionCall | Series | Relation | Words


def negate(tree: Tree) -> Tree:
    """Return the tree of ``-tree``."""
    return Mul((Num(Fraction(-1)), tree))


def divide(top: Tree, bottom: Tree) -> Tree:
    """Return the tree of ``top / bottom``."""
    return Mul((top, Pow(bottom, Num(Fraction(-1)))))


def children(tree: Tree) -> tuple[Tree, ...]:
    """Return the direct parts of ``tree``."""
    match tree:
        case Add(parts) | Mul(parts) | FunctionCall(_, parts) | Series(_, parts) | Relation(parts, _):
            return parts
        case Pow(base, exponent):
            return (base, exponent)
        case Percent(value):
            return (value,)
        case _:
            return ()


def walk(tree: Tree) -> Iterator[Tree]:
    """Yield ``tree`` and every part of it."""
    yield tree
    for child in children(tree):
        yield from walk(child)
