"""Immutable trees that answers are read into. Nothing here is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    "replaced",
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
    ``,`` for a bare list, ``or`` for alternatives, ``:`` for a ratio, ``cup`` for a union, ``minus`` for a
    difference of sets, ``mod`` for (residue, modulus), ``matrix`` and ``row``.
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


def replaced(tree: Tree, rule: Callable[[Tree], Tree | None]) -> Tree:
    """Return ``tree`` with every part for which ``rule`` returns a tree replaced by it, from the outside in."""
    new = rule(tree)
    if new is not None:
        return new
    match tree:
        case Add(parts):
            return Add(tuple(replaced(part, rule) for part in parts))
        case Mul(parts):
            return Mul(tuple(replaced(part, rule) for part in parts))
        case FunctionCall(name, parts):
            return FunctionCall(name, tuple(replaced(part, rule) for part in parts))
        case Series(kind, parts):
            return Series(kind, tuple(replaced(part, rule) for part in parts))
        case Relation(parts, signs):
            return Relation(tuple(replaced(part, rule) for part in parts), signs)
        case Pow(base, exponent):
            return Pow(replaced(base, rule), replaced(exponent, rule))
        case Percent(value):
            return Percent(replaced(value, rule))
        case _:
            return tree
