"""Exact equality of scalars, and what else is asked of their exact values.

``equal`` returns ``None`` outside what ``scalars.Algebra`` covers (a nested root, a sine), where the next stage
decides.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from envgym.math_equivalence.limits import UnreadableError
from envgym.math_equivalence.ring import Budget, OverBudgetError
from envgym.math_equivalence.scalars import Algebra
from envgym.math_equivalence.shapes import infinity_sign
from envgym.math_equivalence.tree import FunctionCall, Relation, Series, Sym, Tree, Words, children, walk

__all__ = ["check_value", "equal", "proportion", "quotient", "within"]


def equal(left: Tree, right: Tree, budget: Budget) -> bool | None:
    """Return whether two scalars are equal; ``None`` when exact arithmetic cannot tell.

    Raises ``UnreadableError`` when either is not a number: a division by zero, or a value over a cap.
    """
    algebra = Algebra(budget)
    try:
        difference = algebra.value(left).minus(algebra.value(right))
    except OverBudgetError:
        return None
    except ZeroDivisionError as error:
        raise UnreadableError(str(error)) from error
    if not difference:
        return True
    return False if algebra.complete else None


def check_value(tree: Tree, equal_numerically: Callable[[Tree, Tree, Fraction | None], bool]) -> None:
    """Raise ``UnreadableError`` if a scalar in ``tree`` divides by zero, is over a cap, or has no value.

    Args:
        tree: the answer.
        equal_numerically: evaluates a number that exact arithmetic cannot; true where it equals itself.
    """
    if isinstance(tree, Series | Relation):
        for part in children(tree):
            check_value(part, equal_numerically)
        return
    if isinstance(tree, Words) or infinity_sign(tree):
        return
    algebra = Algebra(Budget())
    try:
        algebra.value(tree)
    except OverBudgetError:
        return
    except ZeroDivisionError as error:
        raise UnreadableError(str(error)) from error
    is_number = not any(isinstance(part, Sym) or _is_symbolic_call(part) for part in walk(tree))
    if is_number and not algebra.complete and not equal_numerically(tree, tree, None):
        raise UnreadableError("its value cannot be computed")


def _is_symbolic_call(tree: Tree) -> bool:
    return isinstance(tree, FunctionCall) and (tree.name.startswith("call:") or tree.name in ("sum", "prod"))


def within(left: Tree, right: Tree, tolerance: Fraction, budget: Budget) -> bool | None:
    """Return whether two rational scalars differ by at most ``tolerance``; ``None``: one is not rational."""
    algebra = Algebra(budget)
    try:
        difference = (algebra.value(left) + algebra.value(right).scaled(Fraction(-1))).rational()
    except OverBudgetError:
        return None
    except ZeroDivisionError as error:
        raise UnreadableError(str(error)) from error
    return None if difference is None else abs(difference) <= tolerance


def quotient(left: Tree, right: Tree, budget: Budget) -> Fraction | None:
    """Return ``left / right`` if it is visibly a rational number, else ``None``."""
    algebra = Algebra(budget)
    try:
        return (algebra.value(left) * algebra.value(right).inverse()).rational()
    except (OverBudgetError, ZeroDivisionError):
        return None


def proportion(left: Tree, right: Tree, budget: Budget) -> Fraction | None:
    """Return the rational factor with ``left = factor * right``, 0 if there is none, ``None`` if unknown.

    Constants are in proportion to every other constant, so for them the result is ``None`` too.
    """
    algebra = Algebra(budget)
    try:
        ratio, other = algebra.value(left), algebra.value(right)
        top, bottom = ratio.cross(other)
    except (OverBudgetError, ZeroDivisionError):
        return None
    if not any(name[0] == 3 for monomial in top for name, _ in monomial):
        return None
    if top.keys() != bottom.keys():
        return Fraction(0) if algebra.complete else None
    factors = {coefficient / bottom[monomial] for monomial, coefficient in top.items()}
    if len(factors) == 1:
        return factors.pop()
    return Fraction(0) if algebra.complete else None
