"""Compare a program's output with the expected output."""

from __future__ import annotations

import decimal

__all__ = ["same_output"]

_MAX_NUMBER_CHARS = 400


def same_output(expected: str, actual: str) -> bool:
    """Return whether two outputs agree, line by line.

    Trailing spaces and empty lines at the end of the output do not count. Words are compared as text, or as exact
    decimal numbers, so that ``1.50`` equals ``1.5`` but ``0.1`` differs from ``0.1000001``.
    """
    wanted, given = _lines(expected), _lines(actual)
    return len(wanted) == len(given) and all(map(_same_line, wanted, given))


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _same_line(expected: str, actual: str) -> bool:
    if expected == actual:
        return True
    wanted, given = expected.split(), actual.split()
    return len(wanted) == len(given) and all(map(_same_word, wanted, given))


def _same_word(expected: str, actual: str) -> bool:
    if expected == actual:
        return True
    numbers = [_number(word) for word in (expected, actual)]
    return None not in numbers and numbers[0] == numbers[1]


def _number(word: str) -> decimal.Decimal | None:
    if len(word) > _MAX_NUMBER_CHARS or not word.isascii() or "_" in word:
        return None
    try:
        number = decimal.Decimal(word)
    except decimal.InvalidOperation:
        return None
    return number if number.is_finite() else None
