"""Approximate values, for putting bounds in order. They never decide that two answers are equal."""

from __future__ import annotations

import math

from envgym.math_equivalence.tree import Add, Const, FunctionCall, Mul, Num, Percent, Pow, Tree

__all__ = ["approximate"]

_CONSTANTS = {"pi": math.pi, "e": math.e}


def approximate(tree: Tree) -> float | None:
    """Return the real value of ``tree`` to about ten digits; ``None`` with a variable, or too large."""
    try:
        value = _value(tree)
    except (ArithmeticError, ValueError):
        return None
    return value if isinstance(value, float) and math.isfinite(value) else None


def _value(tree: Tree) -> float:
    match tree:
        case Num(value):
            return float(value)
        case Const(name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case Add(terms):
            return math.fsum(map(_value, terms))
        case Mul(factors):
            return math.prod(map(_value, factors))
        case Percent(value):
            return _value(value) / 100
        case Pow(base, exponent):
            return math.pow(_value(base), _value(exponent))
        case FunctionCall("root", (radicand, index)):
            inside, degree = _value(radicand), _value(index)
            return (
                -math.pow(-inside, 1 / degree) if inside < 0 and degree % 2 == 1 else math.pow(inside, 1 / degree)
            )
        case FunctionCall("ln", (argument,)):
            return math.log(_value(argument))
        case FunctionCall("log", (argument, base)):
            return math.log(_value(argument)) / math.log(_value(base))
        case _:
            raise ValueError(f"{type(tree).__name__} has no approximate value")
