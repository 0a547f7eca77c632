"""An exact calculator for text that a model wrote: rationals, no names, no calls, bounded work."""

from __future__ import annotations

import ast
import re
from fractions import Fraction

__all__ = ["CalculatorError", "calculate"]

_MAX_CHARS = 200
_MAX_DEPTH = 32
_MAX_DIGITS = 200
_MAX_BITS = 665  # 200 decimal digits
_MAX_EXPONENT = 1000
_ALLOWED = re.compile(r"[0-9+\-*/%(). ]*", re.ASCII)
_SPELLINGS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**"})


class CalculatorError(ValueError):
    """The expression cannot be evaluated; the message tells the model that wrote it why."""


def calculate(expression: str) -> str:
    """Evaluate ``+ - * / // % **`` and brackets over exact rationals.

    Returns:
        an integer, a fraction in lowest terms, or, when the input has a decimal point and the result
        terminates, a decimal.

    Raises:
        CalculatorError: the expression is malformed, divides by zero, or is over a cap: 200 characters, depth 32,
            results of 200 digits, exponents of 1000.
    """
    if len(expression) > _MAX_CHARS:
        raise CalculatorError(f"the expression is longer than {_MAX_CHARS} characters")
    text = expression.translate(_SPELLINGS).strip()
    if not _ALLOWED.fullmatch(text):
        raise CalculatorError("only numbers, + - * / // % ** and brackets are allowed")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise CalculatorError("not a complete expression") from None
    return _render(_evaluate(tree.body, text, 0), decimal="." in text)


def _evaluate(node: ast.expr, text: str, depth: int) -> Fraction:
    if depth > _MAX_DEPTH:
        raise CalculatorError(f"brackets and operators nest deeper than {_MAX_DEPTH}")
    match node:
        case ast.Constant(value=int() | float()):
            # Read the source text, because a float would round 0.1.
            return Fraction(text[node.col_offset : node.end_col_offset])
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, text, depth + 1)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _evaluate(operand, text, depth + 1)
        case ast.BinOp(left=left, op=operator, right=right):
            result = _apply(operator, _evaluate(left, text, depth + 1), _evaluate(right, text, depth + 1))
            if max(result.numerator.bit_length(), result.denominator.bit_length()) > _MAX_BITS:
                raise CalculatorError(f"a result has more than {_MAX_DIGITS} digits")
            return result
        case _:
            raise CalculatorError("only numbers, + - * / // % ** and brackets are allowed")


def _apply(operator: ast.operator, left: Fraction, right: Fraction) -> Fraction:
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Pow():
            return _power(left, right)
        case _ if right == 0:
            raise CalculatorError("division by zero")
        case ast.Div():
            return left / right
        case ast.FloorDiv():
            return Fraction(left // right)
        case _:
            return left % right


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > _MAX_EXPONENT:
        raise CalculatorError(f"exponents must be whole numbers of at most {_MAX_EXPONENT}")
    if base == 0 and exponent < 0:
        raise CalculatorError("division by zero")
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) != 1 and (size - 1) * abs(exponent) > _MAX_BITS:
        raise CalculatorError(f"a result has more than {_MAX_DIGITS} digits")
    return Fraction(base ** int(exponent))


def _render(value: Fraction, *, decimal: bool) -> str:
    places = _decimal_places(value.denominator) if decimal else 0
    if not places:
        return str(value)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _decimal_places(denominator: int) -> int:
    """Return the digits after the point of a terminating decimal, or 0 where it does not terminate."""
    counts = {2: 0, 5: 0}
    for factor in counts:
        while denominator % factor == 0:
            denominator //= factor
            counts[factor] += 1
    return max(counts.values()) if denominator == 1 else 0
