r"""Answers that restate the problem: ``\sum_{k=1}^{10}k`` is not an answer to "what is the sum", ``55`` is.

A prediction may leave an operation unevaluated only if the gold does too. Beside a gold that is a plain number,
every sum, product and function counts as unevaluated; fractions, powers, roots, percentages and scientific
notation are values.
"""

from __future__ import annotations

import re
from fractions import Fraction

from envgym.math_equivalence.tree import Add, Const, FunctionCall, Mul, Num, Pow, Sym, Tree, walk

__all__ = ["undone", "unevaluated_commands"]

_COMMANDS = re.compile(r"\\(sum|int|iint|iiint|oint|prod|lim|binom|max|min|gcd|lcm|det|bmod|pmod|mod)(?![a-zA-Z])")
_CALLS = frozenset({"factorial", "binom", "max", "min", "gcd", "lcm"})
_MINUS_ONE = Num(Fraction(-1))


def unevaluated_commands(text: str) -> frozenset[str]:
    """Return the unevaluated operations in normalised ``text``, by command; ``!`` stands for a factorial."""
    names = frozenset(_COMMANDS.findall(text))
    return names | {"!"} if "!" in text.replace("!=", "") else names


def undone(prediction: Tree, gold: Tree) -> str | None:
    """Return an operation that ``prediction`` leaves unevaluated and ``gold`` does not hold, or ``None``."""
    extra = _operations(prediction) - _operations(gold)
    if not _is_rational(gold):
        extra &= _CALLS
    return min(extra, default=None)


def _operations(tree: Tree) -> set[str]:
    found = set()
    for part in walk(tree):
        match part:
            case Add():
                found.add("sum")
            case FunctionCall(name) if name != "root":
                found.add(name)
            case Mul(factors) if sum(_is_literal(factor) for factor in factors) > 1:
                found.add("product")
    return found


def _is_literal(tree: Tree) -> bool:
    if isinstance(tree, Mul):
        return all(isinstance(part, Num | Mul | Pow) for part in walk(tree))
    return isinstance(tree, Num) and tree != _MINUS_ONE


def _is_rational(tree: Tree) -> bool:
    return not any(
        isinstance(part, Const | FunctionCall) or (isinstance(part, Sym) and not part.unit) for part in walk(tree)
    )
