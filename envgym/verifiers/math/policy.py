"""What the task's metadata says about units, percentages and rounding."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from envgym.verifiers.math.grammar import read_tree
from envgym.verifiers.math.normalise import normalise
from envgym.verifiers.math.tree import Mul, Num, Percent, Pow, Sym, Tree, walk

__all__ = ["ANY_UNIT", "Policy"]

ANY_UNIT = "*"
"""The gold is a bare number, and a unit that only the prediction states is ignored."""
_UNIT_LETTERS = frozenset("msghLNJWVK")
_MINUS_ONE = Num(Fraction(-1))


@dataclass(frozen=True, slots=True)
class Policy:
    """How scalars are read before they are compared."""

    unit: str | None = None
    """A unit that either side may leave out; ``ANY_UNIT``; or ``None``: both state the same unit or none."""
    percent: bool = False
    """Whether a number without a percent sign is a percentage all the same."""
    rounded: bool = False
    """Whether a decimal gold stands for every value that rounds to it."""

    def read(self, tree: Tree, other: Tree) -> Tree:
        """Return the scalar ``tree`` as this policy reads it beside ``other``."""
        if self.unit == ANY_UNIT:
            tree = tree if _symbols(other) else _without_units(tree)
        elif self.unit is not None:
            unit = read_tree(f"1 {normalise(self.unit)}")
            tree = tree if _symbols(unit) & _symbols(tree) else Mul((tree, unit))
        if self.percent and not any(isinstance(part, Percent) for part in walk(tree)):
            tree = Percent(tree)
        return tree

    def tolerance(self, gold: Tree) -> Fraction | None:
        """Half a unit in the last digit of a decimal ``gold``, in its own units; ``None``: exactly."""
        if not self.rounded:
            return None
        value = gold
        while isinstance(value, Mul) and value.factors[0] == _MINUS_ONE:
            value = value.factors[1]
        if isinstance(value, Num) and value.decimals:
            return Fraction(1, 2 * 10**value.decimals)
        return None


def _symbols(tree: Tree) -> set[str]:
    return {part.name for part in walk(tree) if isinstance(part, Sym)}


def _without_units(tree: Tree) -> Tree:
    if not isinstance(tree, Mul):
        return tree
    kept = tuple(_without_units(factor) for factor in tree.factors if not _is_unit(factor))
    return kept[0] if len(kept) == 1 else Mul(kept)


def _is_unit(tree: Tree) -> bool:
    base = tree.base if isinstance(tree, Pow) else tree
    return isinstance(base, Sym) and (base.unit or base.name in _UNIT_LETTERS)
