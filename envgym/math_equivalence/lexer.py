"""Split normalised answer text into tokens."""

from __future__ import annotations

import re
from typing import NamedTuple

from envgym.math_equivalence.limits import MAX_EXPONENT, OverCapError, UnreadableError

__all__ = ["Token", "tokenise"]

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<repeating>[0-9]*\.[0-9]*\\(?:overline|bar)\s*(?:\{[0-9]+\}|[0-9]))
    |(?P<grouped>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?)
    |(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<environment>\\(?:begin|end)\s*\{[a-zA-Z]+\*?\})
    |(?P<name>\\name\s*\{[^{}]*\})
    |(?P<command>\\(?:[a-zA-Z]+|[{}|\#&]))
    |(?P<word>[^\W\d_]+)
    |(?P<symbol><=|>=|!=|==|\*\*|[-+*/^_(){}\[\]|,;:=<>!%'&])
    )\s*""",
    re.VERBOSE,
)
_LIST_OPENERS = frozenset({"(", "[", "\\{"})
_LIST_CLOSERS = frozenset({")", "]", "\\}"})


class Token(NamedTuple):
    """One token; ``kind`` is the name of a group of the lexer's pattern, or ``end``."""

    kind: str
    text: str


def tokenise(text: str, *, grouped: bool = True) -> list[Token]:
    """Split normalised ``text`` into tokens; raise ``UnreadableError`` at a character that starts none.

    With ``grouped``, ``1,234`` outside brackets is one number; otherwise its comma always separates.
    """
    tokens: list[Token] = []
    position, open_lists = 0, 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise UnreadableError(f"unexpected character {text[position]!r}")
        kind, position = match.lastgroup, match.end()
        piece = match[kind]
        if kind == "grouped" and (not grouped or open_lists):
            comma = piece.index(",")
            position = match.start(kind) + comma
            kind, piece = "number", piece[:comma]
        elif kind in ("symbol", "command"):
            open_lists += (piece in _LIST_OPENERS) - (piece in _LIST_CLOSERS)
        elif kind == "number" and "e" in piece.lower():
            _check_scientific(piece)
        tokens.append(Token("number" if kind == "grouped" else kind, piece.replace("**", "^")))
    return tokens


def _check_scientific(piece: str) -> None:
    exponent = piece.lower().partition("e")[2]
    if len(exponent) > 6 or abs(int(exponent)) > MAX_EXPONENT:
        raise OverCapError(f"an exponent is over the cap of {MAX_EXPONENT}")
