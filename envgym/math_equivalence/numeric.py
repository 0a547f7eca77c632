"""Equality of scalars by evaluation to 600 and to 1200 digits. Runs in the worker process only.

Two expressions are equal if their difference is rounding noise, which shrinks as the precision grows; a true
difference, however small, keeps its size. Variables are evaluated at fixed rational points of both signs, at the
first of them with all digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import mpmath

from envgym.math_equivalence.tree_json import Node

__all__ = ["answer", "equal"]

_PRECISIONS = ((50, 100), (600, 1200))
"""Pairs of precisions in digits: a cheap one that shows most differences, and one that is hard to fool."""
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(mpmath, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
    **{"a" + name: getattr(mpmath, "a" + name) for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{"a" + name: getattr(mpmath, "a" + name) for name in ("sinh", "cosh", "tanh")},
    "ln": mpmath.ln,
    "lg": mpmath.log10,
    "abs": abs,
    "floor": mpmath.floor,
    "ceil": mpmath.ceil,
    "max": max,
    "min": min,
    "binom": mpmath.binomial,
    "factorial": mpmath.factorial,
    "double_factorial": mpmath.fac2,
    "re": mpmath.re,
    "im": mpmath.im,
    "conj": mpmath.conj,
    "arg": mpmath.arg,
}
_OF_COMPLEX = frozenset({"re", "im", "conj", "arg"})
_EXPONENTIAL = frozenset({"sinh", "cosh", "binom"})
_LARGEST_FACTORIAL = 10_000
_LARGEST_ARGUMENT = 1_000_000
_LARGEST_MAGNITUDE = 1_000_000


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Compare within ``tolerance``; a side without a numeric value equals nothing."""
    tolerance = Fraction(request["tolerance"]) if request["tolerance"] else None
    try:
        return {"equal": equal(request["prediction"], request["gold"], tolerance)}
    except (ValueError, ZeroDivisionError, OverflowError):
        return {"equal": False}


def equal(left: Node, right: Node, tolerance: Fraction | None) -> bool:
    """Return whether two scalars are equal, or within ``tolerance`` of each other.

    Raises ``ValueError`` for a function that has no numeric value.
    """
    names = sorted({name for node in (left, right) for name in _symbols(node)})
    if not names:
        return _equal_at({}, left, right, tolerance)
    # Each variable gets a value of its own over a prime denominator, so that different functions rarely agree.
    tried = 0
    for point in _points(names, whole=any(map(_counts, (left, right)))):
        try:
            with mpmath.workdps(30):
                if mpmath.im(_value(right, point)):  # outside the gold's real domain, where branches may differ
                    continue
            precisions = _PRECISIONS[:1] if tried else _PRECISIONS
            if not _equal_at(point, left, right, tolerance, precisions):
                return False
            tried += 1
        except (ZeroDivisionError, OverflowError):
            continue
    return tried > 1  # a single point in the domain is too little evidence


def _points(names: list[str], *, whole: bool) -> Iterator[dict[str, Fraction]]:
    """Yield values for the variables, whole numbers where they count something."""
    if whole:
        for start in (29, 41, 57, 83, 101):
            yield {name: Fraction(start + 13 * i) for i, name in enumerate(names)}
        return
    for sign, shift in ((1, 0), (1, 7), (-1, 0), (-1, 7), (1, 19)):
        yield {name: Fraction(sign * (1009 + 97 * i + 31 * shift * (i + 1)), 733) for i, name in enumerate(names)}


def _counts(node: Node) -> bool:
    """Return whether a factorial or a binomial is in ``node``: its variables are whole numbers."""
    if node[0] == "call" and ("factorial" in node[1] or node[1] == "binom"):
        return True
    return any(_counts(child) for child in node if isinstance(child, list))


def _equal_at(
    point: dict[str, Fraction],
    left: Node,
    right: Node,
    tolerance: Fraction | None,
    precisions: tuple[tuple[int, int], ...] = _PRECISIONS,
) -> bool:
    if tolerance is not None:
        with mpmath.workdps(_PRECISIONS[0][1]):
            gap = abs(_value(left, point) - _value(right, point))
            return bool(gap <= mpmath.mpf(tolerance.numerator) / tolerance.denominator)
    return all(_is_noise(point, left, right, digits, more) for digits, more in precisions)


def _is_noise(point: dict[str, Fraction], left: Node, right: Node, digits: int, more: int) -> bool:
    """Return whether the difference shrinks by half the added digits when ``digits`` become ``more``."""
    gaps, values = [], []
    for precision in (digits, more):
        with mpmath.workdps(precision):
            a, b = _value(left, point), _value(right, point)
            if not (mpmath.isfinite(a) and mpmath.isfinite(b)):
                return False
            gaps.append(abs(a - b))
            values.append(b)
    coarse, fine = gaps
    if abs(values[1] - values[0]) > mpmath.mpf(10) ** (-digits // 2) * max(1, abs(values[1])):
        return False  # a pole, met at a rounded argument: tan(pi/2) grows with every digit
    if coarse == 0:  # no ratio to take: the finer difference must vanish at the coarse precision
        return bool(fine <= mpmath.mpf(10) ** -digits * max(abs(a), abs(b)))
    return bool(fine <= coarse * mpmath.mpf(10) ** ((digits - more) // 2))


def _symbols(node: Node) -> Iterator[str]:
    if node[0] == "sym":
        yield str(node[1])
    elif node[:2] == ["call", "log"] and len(node) == 3:
        yield "base of log"
    for child in node:
        if isinstance(child, list):
            yield from _symbols(child)


def _value(node: Node, point: dict[str, Fraction]) -> Any:
    kind, *rest = node
    if kind == "num":
        return mpmath.mpf(int(str(rest[0]), 16)) / int(str(rest[1]), 16)
    if kind == "sym":
        fraction = point[str(rest[0])]
        return mpmath.mpf(fraction.numerator) / fraction.denominator
    if kind == "const":
        return mpmath.mpc(0, 1) if rest[0] == "i" else +getattr(mpmath, str(rest[0]))
    parts = [_value(child, point) for child in rest if isinstance(child, list)]
    if kind == "add":
        return mpmath.fsum(parts)
    if kind == "mul":
        return mpmath.fprod(parts)
    if kind == "pow":
        return _real_power(parts, rest[1]) if _is_negative(parts[0]) else _power(*parts)
    return _call(str(rest[0]), parts, point)


def _is_negative(value: Any) -> bool:
    return bool(mpmath.im(value) == 0 and mpmath.re(value) < 0)


def _real_power(parts: list[Any], exponent: str | Node) -> Any:
    """Return a power of a negative number: real where the exponent has an odd denominator, as its root is."""
    base, value = parts
    ratio = _ratio(exponent)
    if ratio is None or ratio.denominator == 1 or ratio.denominator % 2 == 0:
        return _power(base, value)
    return _power(-base, value) * (-1 if ratio.numerator % 2 else 1)


def _ratio(node: str | Node) -> Fraction | None:
    """Return the rational number that a node of numbers, products and reciprocals is."""
    if node[0] == "num":
        return Fraction(int(str(node[1]), 16), int(str(node[2]), 16))
    if node[0] == "pow" and (base := _ratio(node[1])) and _ratio(node[2]) == -1:
        return 1 / base
    if node[0] == "mul":
        product = Fraction(1)
        for factor in node[1:]:
            part = _ratio(factor)
            if part is None:
                return None
            product *= part
        return product
    return None


def _power(base: Any, exponent: Any) -> Any:
    """Return the power; raise ``ValueError`` if it has more than a million digits."""
    if base and abs(exponent) * abs(mpmath.log10(abs(base))) > _LARGEST_MAGNITUDE:
        raise ValueError("a power too large to be an answer")
    return mpmath.power(base, exponent)


def _call(name: str, parts: list[Any], point: dict[str, Fraction]) -> Any:
    if name == "root":  # an odd root of a negative number is real here; mpmath's principal root is complex
        radicand, index = parts
        if mpmath.im(radicand) == 0 and mpmath.re(radicand) < 0 and mpmath.isint(index) and int(index) % 2:
            return -mpmath.power(-radicand, 1 / index)
        return mpmath.power(radicand, 1 / index)
    if name == "log":
        base = parts[1] if len(parts) > 1 else _value(["sym", "base of log"], point)
        return mpmath.ln(parts[0]) / mpmath.ln(base)
    if "factorial" in name and not abs(parts[0]) <= _LARGEST_FACTORIAL:
        raise ValueError("a factorial of a large number")
    if name in _OF_COMPLEX and point:  # the points of variables are real, so they say nothing of a complex number
        raise ValueError("a part of a complex variable")
    if any(abs(part) > _LARGEST_ARGUMENT for part in parts) and name in _EXPONENTIAL:
        raise ValueError("a value too large to be an answer")
    if name not in _FUNCTIONS:
        raise ValueError(f"{name} has no numeric value")
    return _FUNCTIONS[name](*parts)
