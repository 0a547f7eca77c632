r"""Names on the left of an equals sign that are not one letter: ``\angle ABC = 60^\circ``, ``P(A) = \frac12``.

Each is replaced by one symbol before parsing, so that ``Area of ABC = 10`` is read like ``x = 10``. A sum, a
product of small letters or a number is no name: ``a+b=5`` and ``6=5`` stay equations.
"""

from __future__ import annotations

import re

from envgym.math_equivalence.units import NUMBER_WORDS

__all__ = ["name_labels"]

_MARK = (
    r"\\(?:angle|triangle|overline|overrightarrow|overleftrightarrow|widehat|hat|vec|tilde|arc|overarc|wideparen|square"
    r"|odot|parallelogram)(?![a-zA-Z])"
)
_POINTS = r"\{?\s*(?:\\?[A-Za-z]+[0-9']*(?:_\{?\w+\}?)?|[0-9]+)\s*\}?"
_MARKED = rf"m?\s*(?:{_MARK}\s*\{{?\s*)+{_POINTS}\s*\}}?"
_WORD = r"(?:[A-Za-z]{3,}|of|in|to|is|a|by|on|at|no)"
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        _MARKED,
        rf"\|\s*{_MARKED}\s*\|",
        rf"\\(?:sin|cos|tan|cot|sec|csc)\s*\(?\s*{_MARKED}\s*\)?",
        r"\[\s*(?:[A-Z]\s*){3,}\]",
        r"(?:P|E|Pr|Var|Cov|\\Pr|\\mathbb\s*\{?\s*[PE]\s*\}?|\\operatorname\{\w+\})\s*(?:\(.*\)|\[.*\]|\\\{.*\\\})",
        r"[A-Z]'*(?:_\{?\w+\}?)?\s*\(\s*-?[0-9a-zA-Z]+\s*\)",
        r"[fgh](?:'+|\^\s*\{?\s*\(?\s*(?:-?[0-9]+|n)\s*\)?\s*\}?)\s*\(.*\)",
        rf"(?P<words>{_WORD}(?:\s+{_WORD})*)(?:\s+(?:{_MARKED}|\|?[A-Za-z]{{1,6}}\|?))?:?",
    )
)
_VOWEL = re.compile(r"[aeiouyAEIOUY]")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_NOT_NAMES = frozenset({
    "and", "or", "not", "but", "sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "lim", "sum",
    "max", "min", "gcd", "lcm", "frac",
    "wrong", "false", "incorrect", "never", "except", "without", "unlike", "neither", "nor", "than",
})  # fmt: skip
_SHORT_NAMES = frozenset({
    "sum", "max", "min", "gcd", "lcm", "ans", "avg", "lhs", "rhs",
})  # fmt: skip
_GEOMETRY = re.compile(r"^m?(?:angle|triangle|overline|square)+(?=[A-Z0-9])")
_OPENERS, _CLOSERS = "([{", ")]}"


def name_labels(text: str) -> str:
    r"""Return normalised ``text`` with every such name before ``=`` written as ``\name{...}``, in linear time."""
    if "=" not in text:
        return text
    pieces, start, depth = [], 0, 0
    for position, character in enumerate(text):
        if character in _OPENERS:
            depth += 1
        elif character in _CLOSERS:
            depth -= 1
        elif depth == 0 and character in ",;":
            pieces.append(text[start : position + 1])
            start = position + 1
    pieces.append(text[start:])
    return "".join(map(_named, pieces))


def _named(piece: str) -> str:
    conjunction, left, right = _split(piece)
    key = _key(left.strip()) if right else None
    return piece if key is None else rf"{conjunction} \name{{{key}}} {right}"


def _split(piece: str) -> tuple[str, str, str]:
    """Return what joins the piece to the last one, the side before the first equals sign, and the rest."""
    match = re.match(r"\s*(?:and|or)\s", piece)
    start = match.end() if match else 0
    depth = 0
    for position in range(start, len(piece)):
        character = piece[position]
        depth += (character in _OPENERS) - (character in _CLOSERS)
        if character == "=" and depth == 0 and piece[position - 1 : position] not in ("<", ">", "!"):
            return piece[:start], piece[start:position], piece[position:]
    return piece[:start], piece[start:], ""


def _key(label: str) -> str | None:
    for pattern in _PATTERNS:
        match = pattern.fullmatch(label)
        if match is not None:
            words = match.groupdict().get("words")
            if words is not None and not _is_prose(words.casefold().split()):
                return None
            return _GEOMETRY.sub("", "".join(c for c in label if c.isalnum() or c in "'|"))
    return None


def _is_prose(words: list[str]) -> bool:
    if any(word in NUMBER_WORDS or word in _NOT_NAMES - _SHORT_NAMES for word in words):
        return False
    if len(words) == 1:
        (word,) = words
        if word in _SHORT_NAMES:
            return True
        return len(word) > 3 and word not in _ALPHABET and _VOWEL.search(word) is not None
    return True
