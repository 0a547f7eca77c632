"""Equality of LaTeX by Math-Verify, with guards against its false positives. Runs in the worker process only.

Math-Verify 0.9.0 compares floats at a fixed tolerance and accepts a tuple as equal to a set. Here the kinds must
agree first, and numbers must then agree to 50 digits.
"""

from __future__ import annotations

from typing import Any

import math_verify
import sympy
from sympy.core.relational import Relational

__all__ = ["answer", "equal", "readable", "warm_up"]

_DIGITS = 60
_WARM_UP = (
    (r"\int_0^1 x^2 dx", r"\frac{1}{3}"),
    (r"\sum_{k=1}^{10} k^2", "385"),
    (r"\lim_{x \to 0} \frac{\sin x}{x}", "1"),
    (r"\prod_{k=1}^{5} k", "[0, 1)"),
)
_KINDS = (Relational, sympy.Tuple, sympy.FiniteSet, sympy.Interval, sympy.Set, sympy.MatrixBase, sympy.Expr)


def warm_up() -> None:
    """Fill the caches that every forked child then shares: a first answer takes half a second."""
    for prediction, gold in _WARM_UP:
        equal(prediction, gold)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return whether ``gold`` can be read, and whether a ``prediction`` equals it (``None``: unreadable)."""
    if "prediction" in request and readable(request["gold"]):
        return {"equal": equal(request["prediction"], request["gold"]), "readable": True}
    return {"equal": None, "readable": readable(request["gold"])}


def readable(latex: str) -> bool:
    """Return whether Math-Verify reads ``latex`` as mathematics."""
    return _parse(latex) is not None


def equal(prediction: str, gold: str) -> bool | None:
    """Return whether two LaTeX answers are equal; ``None`` when the prediction cannot be read.

    Raises ``ValueError`` if the gold cannot be read.
    """
    left, right = _parse(prediction), _parse(gold)
    if right is None:
        raise ValueError("the gold cannot be read")
    if left is None:
        return None
    if _kind(left) is not _kind(right):
        return False
    if not math_verify.verify(right, left, float_rounding=50, numeric_precision=_DIGITS, timeout_seconds=0):
        return False
    if (
        isinstance(left, sympy.Expr)
        and isinstance(right, sympy.Expr)
        and not (left.free_symbols | right.free_symbols)
    ):
        return _same_number(left, right)
    return True


def _parse(latex: str) -> Any:
    """Return the expression that ``latex`` stands for, or ``None``."""
    config = math_verify.LatexExtractionConfig()
    found = math_verify.parse(
        f"${latex}$", extraction_config=[config], fallback_mode="no_fallback", parsing_timeout=0
    )
    return found[0] if found and isinstance(found[0], sympy.Basic | sympy.MatrixBase) else None


def _kind(expression: Any) -> type | None:
    return next((kind for kind in _KINDS if isinstance(expression, kind)), None)


def _same_number(left: sympy.Expr, right: sympy.Expr) -> bool:
    a, b = (sympy.N(side.doit(), _DIGITS) for side in (left, right))
    if not (a.is_number and b.is_number and a.is_finite and b.is_finite):
        return bool(sympy.simplify(left - right) == 0)
    return bool(abs(a - b) <= sympy.Float(10, _DIGITS) ** (10 - _DIGITS) * max(abs(a), abs(b)))
