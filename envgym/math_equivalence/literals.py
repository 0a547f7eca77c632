"""Read number tokens as exact rationals. No floats."""

from __future__ import annotations

import re
from fractions import Fraction

from envgym.math_equivalence.limits import MAX_DIGITS, OverCapError
from envgym.math_equivalence.tree import Num

__all__ = ["read_number", "read_repeating"]

_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\(?:overline|bar)\s*\{?([0-9]+)\}?")


def read_number(text: str) -> Num:
    """Read ``1,234``, ``0.50`` or ``1.5e3``, and keep the number of decimals written."""
    mantissa, _, exponent = text.replace(",", "").lower().partition("e")
    whole, point, fraction = mantissa.partition(".")
    scale = int(exponent or 0) - len(fraction)
    if len(whole + fraction) > MAX_DIGITS:
        raise OverCapError(f"a number has more digits than the cap of {MAX_DIGITS}")
    digits = int(whole + fraction)
    value = Fraction(digits * 10**scale) if scale >= 0 else Fraction(digits, 10**-scale)
    return Num(value, max(-scale, 0) if point and fraction else None)


def read_repeating(text: str) -> Num:
    r"""Read ``0.1\overline{6}`` as 1/6."""
    match = _REPEATING.fullmatch(text)
    assert match is not None, "the lexer and this module agree on repeating decimals"
    whole, fixed, repeated = match.groups()
    if len(whole + fixed + repeated) > MAX_DIGITS:
        raise OverCapError(f"a number has more digits than the cap of {MAX_DIGITS}")
    denominator = 10 ** len(fixed) * (10 ** len(repeated) - 1)
    start, full = int(whole + fixed or "0"), int(whole + fixed + repeated)
    return Num(Fraction(full - start, denominator))
