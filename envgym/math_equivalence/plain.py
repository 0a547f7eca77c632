"""Plain numbers as exact integer ratios: the stage that decides most answers, in microseconds."""

from __future__ import annotations

import re

__all__ = ["plain_ratio"]

_LONGEST = 64
_NUMBER = re.compile(
    r"""\s*\$*\s*
    (?P<sign>[+-]?)\s*(?:\\?\$)?
    (?:(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.(?P<decimals>[0-9]*))?|\.(?P<bare>[0-9]+))
    (?:\s*/\s*(?P<denominator>[0-9]+))?
    \s*\$*\s*\.?\s*""",
    re.VERBOSE | re.ASCII,
)


def plain_ratio(text: str) -> tuple[int, int] | None:
    """Read ``-1,234``, ``$18.00``, ``.5`` or ``3/4`` as an unreduced (numerator, denominator), else ``None``.

    ``None`` only means "not plain": longer text, other notations and a zero denominator are left to the parser.
    """
    if len(text) > _LONGEST:
        return None
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, whole, decimals, bare, denominator = match.groups()
    fraction = bare or decimals or ""
    numerator = int((whole or "").replace(",", "") + fraction)
    bottom = 10 ** len(fraction)
    if denominator is not None:
        if decimals is not None or bare is not None or int(denominator) == 0:
            return None
        bottom = int(denominator)
    return (-numerator if sign == "-" else numerator), bottom
