"""Apply what a task's metadata says about units, percentages and rounding."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from envgym.math_equivalence.grammar import read_tree
from envgym.math_equivalence.normalise import normalise
from envgym.math_equivalence.tree import Mul, Num, Percent, Pow, Sym, Tree, walk
from envgym.math_equivalence.units import MULTIPLIERS, says_more_than_a_unit

__all__ = ["ANY_UNIT", "AnswerRules", "split_unit"]

ANY_UNIT = "*"
"""The gold is a bare number, and a unit that only the prediction states is ignored."""
_UNIT_LETTERS = frozenset("msghLNJWV")
_ONE = Num(Fraction(1))
_MINUS_ONE = Num(Fraction(-1))


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """Rules for reading scalars before they are compared."""

    unit: str | None = None
    """Unit that either side may omit; ``ANY_UNIT``; or ``None`` if both must state the same unit or none."""
    percent: bool = False
    """True when a number without a percent sign is a percentage too."""
    rounded: bool = False
    """True when a decimal gold stands for every value that rounds to it."""

    def read(self, tree: Tree, other: Tree) -> Tree:
        """Return the scalar ``tree`` as these rules read it beside ``other``."""
        if isinstance(tree, Mul) and not _symbols(other):
            tree = Mul(tuple(_times(factor) for factor in tree.factors))
        if self.unit == ANY_UNIT:
            tree = tree if _symbols(other) else split_unit(tree)[0]
        elif self.unit is not None:
            unit = read_tree(f"1 {normalise(self.unit)}")
            tree = tree if _symbols(unit) & _symbols(tree) else Mul((tree, unit))
        if self.percent and not any(isinstance(part, Percent) for part in walk(tree)):
            tree = Percent(tree)
        return tree

    def tolerance(self, gold: Tree) -> Fraction | None:
        """Return half a unit in the last digit of a decimal ``gold`` from ``read``; ``None``: compare exactly."""
        if not self.rounded:
            return None
        if isinstance(gold, Percent):
            inner = self.tolerance(gold.value)
            return None if inner is None else inner / 100
        if isinstance(gold, Mul) and gold.factors[0] == _MINUS_ONE and len(gold.factors) == 2:
            return self.tolerance(gold.factors[1])
        return Fraction(1, 2 * 10**gold.decimals) if isinstance(gold, Num) and gold.decimals else None


def split_unit(tree: Tree) -> tuple[Tree, Tree]:
    """Return (value, unit) of a product with units; the unit is 1 if there is none."""
    if isinstance(tree, Percent):
        value, unit = split_unit(tree.value)
        return Percent(value), unit
    if not isinstance(tree, Mul):
        return tree, _ONE
    units = tuple(factor for factor in tree.factors if _is_unit(factor))
    parts = [split_unit(factor) for factor in tree.factors if not _is_unit(factor)]
    values = tuple(value for value, _ in parts if value != _ONE)
    return _product(values), _product((*units, *(unit for _, unit in parts if unit != _ONE)))


def _product(factors: tuple[Tree, ...]) -> Tree:
    return factors[0] if len(factors) == 1 else Mul(factors) if factors else _ONE


def _symbols(tree: Tree) -> set[str]:
    return {part.name for part in walk(tree) if isinstance(part, Sym)}


def _is_unit(tree: Tree) -> bool:
    base = tree.base if isinstance(tree, Pow) else tree
    if not isinstance(base, Sym):
        return False
    return base.name in _UNIT_LETTERS or (base.unit and not says_more_than_a_unit(base.name))


def _times(factor: Tree) -> Tree:
    """Return 1000 for the K of ``5K``."""
    count = MULTIPLIERS.get(factor.name) if isinstance(factor, Sym) else None
    return factor if count is None else Pow(Num(Fraction(count)), _ONE)
