"""Exact values of functions: factorials, binomials, divisors, rounding, parts of complex numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from envgym.math_equivalence.ring import IMAGINARY, ONE, Budget, Polynomial, Ratio, constant

__all__ = ["evaluated"]

_LARGEST_FACTORIAL = 1_000
_LARGEST_CHOICE = 12
"""Of a variable, as in the binomial of n over 2, which is a product of as many factors."""


def evaluated(
    name: str, arguments: list[Ratio], opaque: Callable[[str, Ratio], Ratio], budget: Budget
) -> Ratio | None:
    """Return the value of a call where exact arithmetic has one, else ``None``.

    ``opaque`` makes an atom of a call that stays one.
    """
    values = [argument.rational() for argument in arguments]
    if name in ("re", "im", "conj") and len(arguments) == 1:
        return _part(name, arguments[0], budget)
    if name == "factorial" and values == [None]:
        return _shifted_factorial(arguments[0], opaque, budget)
    if name == "binom" and len(arguments) == 2 and values[0] is None:
        return _choices(arguments[0], values[1], budget)
    known = [value for value in values if value is not None]
    if not known or len(known) != len(values):
        return None
    result = _of_rationals(name, known)
    return None if result is None else constant(result, budget)


def _of_rationals(name: str, values: list[Fraction]) -> Fraction | None:
    first = values[0]
    if len(values) == 1:
        match name:
            case "abs":
                return abs(first)
            case "floor":
                return Fraction(math.floor(first))
            case "ceil":
                return Fraction(math.ceil(first))
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    if any(value.denominator != 1 for value in values):
        return None
    return _of_integers(name, [value.numerator for value in values])


def _of_integers(name: str, values: list[int]) -> Fraction | None:
    small = all(0 <= value <= _LARGEST_FACTORIAL for value in values)
    match name:
        case "gcd":
            return Fraction(math.gcd(*values))
        case "lcm":
            return Fraction(math.lcm(*values)) if len(values) <= _LARGEST_CHOICE else None
        case "mod" if len(values) == 2 and values[1]:
            return Fraction(values[0] % values[1])
        case "factorial" if small and len(values) == 1:
            return Fraction(math.factorial(values[0]))
        case "double_factorial" if small and len(values) == 1:
            return Fraction(math.prod(range(values[0], 0, -2)))
        case "binom" if small and len(values) == 2:
            return Fraction(math.comb(*values))
        case _:
            return None


def _choices(total: Ratio, chosen: Fraction | None, budget: Budget) -> Ratio | None:
    """Return n(n-1)...(n-k+1)/k! for a small number k."""
    if chosen is None or chosen.denominator != 1 or not 0 <= chosen <= _LARGEST_CHOICE:
        return None
    product = constant(Fraction(1, math.factorial(int(chosen))), budget)
    for i in range(int(chosen)):
        product = product * (total + constant(Fraction(-i), budget))
    return product


def _shifted_factorial(argument: Ratio, opaque: Callable[[str, Ratio], Ratio], budget: Budget) -> Ratio | None:
    """Return (n+2)! as (n+2)(n+1) n!, so that quotients of factorials cancel."""
    shift = argument.top.get((), Fraction(0))
    if argument.bottom != ONE or shift.denominator != 1 or abs(shift) > _LARGEST_CHOICE:
        return None
    base = argument + constant(-shift, budget)
    product = opaque("factorial", base)
    for i in range(1, abs(int(shift)) + 1):
        factor = base + constant(Fraction(i if shift > 0 else 1 - i), budget)
        product = product * (factor if shift > 0 else factor.inverse())
    return product


def _part(name: str, value: Ratio, budget: Budget) -> Ratio | None:
    """Return a part of a number whose atoms but i are real; ``None`` with a variable or an opaque atom."""
    if value.bottom != ONE or any(atom[0] > 2 for monomial in value.top for atom, _ in monomial):
        return None
    real: Polynomial = {}
    imaginary: Polynomial = {}
    for monomial, coefficient in value.top.items():
        rest = tuple(pair for pair in monomial if pair[0] != IMAGINARY)
        (real if rest == monomial else imaginary)[rest] = coefficient
    if name == "re":
        return Ratio(real, ONE, budget)
    if name == "im":
        return Ratio(imaginary, ONE, budget)
    turned = {monomial: -coefficient for monomial, coefficient in value.top.items() if _has_i(monomial)}
    return Ratio({**value.top, **turned}, ONE, budget)


def _has_i(monomial: tuple[tuple[tuple[int, str], Fraction], ...]) -> bool:
    return any(atom == IMAGINARY for atom, _ in monomial)
