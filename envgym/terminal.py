"""Text for a terminal: what a model, a data set, a plugin or a file wrote never controls it."""

from __future__ import annotations

import unicodedata

__all__ = ["printable"]

_KEPT = frozenset("\n\t")


def printable(text: str) -> str:
    r"""Return ``text`` with every character that is not seen, but blanks, newline and tab, shown as an escape.

    Escapes read ``\x1b`` or ``\u202e``: control characters, those that change the direction of writing or have no
    width, halves of surrogate pairs, and what is not assigned.
    """
    if text.isprintable():
        return text
    return text.translate({ord(c): _escaped(c) for c in set(text) if not _harmless(c)})


def _harmless(character: str) -> bool:
    return character.isprintable() or character in _KEPT or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
