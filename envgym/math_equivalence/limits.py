"""Caps on the text that is read, checked before anything is parsed.

They bound time and memory in the caller's process; an answer over a cap does not count.
"""

from __future__ import annotations

__all__ = [
    "MAX_CHARS",
    "MAX_DEPTH",
    "MAX_DIGITS",
    "MAX_EXPONENT",
    "OverCapError",
    "UnreadableError",
    "check_caps",
]

MAX_CHARS = 512
"""Maximum number of characters of one answer."""
MAX_DEPTH = 32
"""Maximum number of brackets, arguments and exponents open at once."""
MAX_DIGITS = 200
"""Maximum number of digits of one number."""
MAX_EXPONENT = 10_000
"""Maximum absolute value of a numeric exponent."""


class UnreadableError(ValueError):
    """Text that is not an answer in the supported notation."""


class OverCapError(UnreadableError):
    """The text, or the value it stands for, is over a cap."""


def check_caps(text: str) -> None:
    """Raise ``OverCapError`` if ``text`` is over the caps on length or nesting, in linear time."""
    if len(text) > MAX_CHARS:
        raise OverCapError(f"{len(text)} characters, the cap is {MAX_CHARS}")
    depth = 0
    for character in text:
        if character in "([{":
            depth += 1
            if depth > MAX_DEPTH:
                raise OverCapError(f"brackets are nested deeper than the cap of {MAX_DEPTH}")
        elif character in ")]}":
            depth = max(depth - 1, 0)
