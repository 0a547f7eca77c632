r"""Answers that restate the problem: ``\sum_{k=1}^{10}k`` is not an answer to "what is the sum", ``55`` is.

A prediction may leave an operation unevaluated only if the gold does too. Beside a gold that is a plain number,
every sum, product and function counts as unevaluated; fractions, powers, roots, percentages and scientific
notation are values.
"""

from __future__ import annotations

import re
from fractions import Fraction

from envgym.math_equivalence.tree import Add, Const, FunctionCall, Mul, Num, Pow, Sym, Tree, walk

__all__ = ["is_work", "uncounted_commands", "undone", "unevaluated_commands", "value_of_work"]

_COMMANDS = re.compile(r"\\(sum|int|iint|iiint|oint|prod|lim|det|pmod|mod)(?![a-zA-Z])")
_COUNTS = re.compile(r"\\(binom|max|min|gcd|lcm|bmod)(?![a-zA-Z])|(!)(?!=)")
_NAME = re.compile(r"\s*\\?[a-zA-Z]+(?:_(?:\w|\{\w+\}))?\s*")
_CALLS = frozenset({"factorial", "double_factorial", "binom", "max", "min", "gcd", "lcm", "mod"})
_MINUS_ONE = Num(Fraction(-1))


def unevaluated_commands(text: str) -> frozenset[str]:
    """Return the operations in normalised ``text`` that only computer algebra can read, by command."""
    return frozenset(_COMMANDS.findall(text))


def value_of_work(text: str) -> str:
    r"""Return the last side of ``\sum_{k=1}^{10} k = 55``; every side before it is such an operation or a name."""
    if not unevaluated_commands(text):
        return text
    *way, last = split_sides(text)
    is_work = [bool(unevaluated_commands(step)) for step in way]
    named = bool(way) and _NAME.fullmatch(way[0]) is not None
    return last if any(is_work) and all(is_work[named:]) else text


def split_sides(text: str) -> list[str]:
    """Return what stands between the equals signs outside brackets."""
    sides, start, depth = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "=" and depth == 0:
            sides.append(text[start:position])
            start = position + 1
    return [*sides, text[start:]]


def uncounted_commands(text: str) -> frozenset[str]:
    """Return the factorials, choices and divisors in normalised ``text``, by command or sign."""
    return frozenset(match[1] or match[2] for match in _COUNTS.finditer(text))


def undone(prediction: Tree, gold: Tree) -> str | None:
    """Return an operation that ``prediction`` leaves unevaluated and ``gold`` does not hold, or ``None``."""
    extra = _operations(prediction) - _operations(gold)
    if not _is_rational(gold):
        extra &= _CALLS
    return min(extra, default=None)


def is_work(tree: Tree) -> bool:
    """Return whether ``tree`` is a calculation with numbers, which is no answer by itself: ``2+3``."""
    return not _has_variable(tree) and bool(_operations(tree))


def _operations(tree: Tree) -> set[str]:
    found = set()
    for part in walk(tree):
        match part:
            case Add():
                found.add("sum")
            case FunctionCall(name, arguments) if name != "root" and not _is_evaluated(name, arguments):
                found.add(name)
            case Mul(factors) if sum(_is_literal(factor) for factor in factors) > 1:
                found.add("product")
    return found


def _is_evaluated(name: str, arguments: tuple[Tree, ...]) -> bool:
    """Return whether a call is a value as it stands: a count with a variable in it, or a number between bars."""
    if name in _CALLS:
        return any(map(_has_variable, arguments))
    return name == "abs" and _is_literal(*arguments)


def _has_variable(tree: Tree) -> bool:
    return any(isinstance(part, Sym) and not part.unit for part in walk(tree))


def _is_literal(tree: Tree) -> bool:
    if isinstance(tree, Mul):
        return all(isinstance(part, Num | Mul | Pow) for part in walk(tree))
    return isinstance(tree, Num) and tree != _MINUS_ONE


def _is_rational(tree: Tree) -> bool:
    return not any(
        isinstance(part, Const | FunctionCall) or (isinstance(part, Sym) and not part.unit) for part in walk(tree)
    )
