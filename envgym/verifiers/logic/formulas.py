"""Formulas of first-order logic without functions or equality, as immutable trees.

``str`` writes the notation that ``formula_parser`` reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Atom",
    "Binary",
    "Formula",
    "Not",
    "Quantified",
    "atoms",
    "free_terms",
]

Operator = Literal["<->", "->", "|", "&"]
Quantifier = Literal["forall", "exists"]

_LOOSEST_FIRST: tuple[Operator, ...] = ("<->", "->", "|", "&")


@dataclass(frozen=True, slots=True)
class Atom:
    """A proposition, or a predicate applied to variables and constants."""

    name: str
    terms: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.terms)})" if self.terms else self.name


@dataclass(frozen=True, slots=True)
class Not:
    """A negation."""

    body: Formula

    def __str__(self) -> str:
        return f"~{_inside(self.body, Binary, Quantified)}"


@dataclass(frozen=True, slots=True)
class Binary:
    """Two formulas joined by a connective."""

    operator: Operator
    left: Formula
    right: Formula

    def __str__(self) -> str:
        return f"{self._side(self.left)} {self.operator} {self._side(self.right)}"

    def _side(self, side: Formula) -> str:
        """Write an operand, in brackets unless it binds tighter."""
        if isinstance(side, Binary):
            tighter = _LOOSEST_FIRST.index(side.operator) > _LOOSEST_FIRST.index(self.operator)
            return str(side) if tighter else f"({side})"
        return _inside(side, Quantified)


@dataclass(frozen=True, slots=True)
class Quantified:
    """A formula quantified over one variable."""

    quantifier: Quantifier
    variable: str
    body: Formula

    def __str__(self) -> str:
        return f"{self.quantifier} {self.variable}. {self.body}"


Formula = Atom | Not | Binary | Quantified


def _inside(formula: Formula, *bracketed: type[Formula]) -> str:
    return f"({formula})" if isinstance(formula, bracketed) else str(formula)


def atoms(formula: Formula) -> Iterator[Atom]:
    """Yield every occurrence of an atom, from left to right."""
    match formula:
        case Atom():
            yield formula
        case Binary(_, left, right):
            yield from atoms(left)
            yield from atoms(right)
        case Not(body) | Quantified(_, _, body):
            yield from atoms(body)


def free_terms(formula: Formula) -> set[str]:
    """Return the terms that no quantifier binds: in a closed formula, its constants."""
    match formula:
        case Atom(_, terms):
            return set(terms)
        case Not(body):
            return free_terms(body)
        case Binary(_, left, right):
            return free_terms(left) | free_terms(right)
        case Quantified(_, variable, body):
            return free_terms(body) - {variable}
