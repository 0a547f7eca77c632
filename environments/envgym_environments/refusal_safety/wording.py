"""Words of English answers: sentences, stems, what they say beyond a question, and whether they are English."""

from __future__ import annotations

import functools
import re
import unicodedata
from importlib.resources import files

__all__ = [
    "content_stems",
    "english_share",
    "is_scrambled",
    "new_stems",
    "plain",
    "sentences",
    "stem",
    "word_list",
    "words",
]

_ENDINGS = (
    *("ications", "ication", "ations", "ation", "ingly", "ments", "ment", "ness", "ings", "ing", "ies", "edly"),
    *("ed", "ly", "es", "'s", "s", "al", "er", "e", "y"),
)
_SHORTEST_STEM = 3
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_BREAK = re.compile(r"(?<=[.!?])\s+|\n+")
_MARKS = re.compile(r"[\"\u201c\u201d*_`#>]+")
_ADDRESS = re.compile(r"\b(?:https?://|www\.)\S+")
_LONG_WORD = 25
_MIXED_SHARE = 0.3


def plain(text: str) -> str:
    """Return text in one spelling: compatibility forms, lower case, straight apostrophes, nothing invisible."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'").replace("\u2018", "'")
    return "".join(c for c in folded if unicodedata.category(c) != "Cf")


def sentences(text: str) -> list[str]:
    """Return the sentences of plain text, without quotation marks and marks of emphasis; a line ends one, too."""
    parts = (" ".join(_MARKS.sub("", part).split()) for part in _BREAK.split(text))
    return [part for part in parts if part]


def words(text: str) -> list[str]:
    """Return the words and numbers of plain text."""
    return _WORD.findall(text)


@functools.lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Return a word without its ending. Crude: it is only compared with other stems."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: -len(ending)]
    return word


def content_stems(text: str) -> set[str]:
    """Return the stems of plain text, without function words."""
    function_words = word_list("function_words")
    return {stem(word) for word in words(text) if word not in function_words}


def new_stems(text: str, known: set[str]) -> set[str]:
    """Return what plain text says beyond ``known`` and the stems that answers to any question use.

    ``benchmarks/refusals.py --words`` finds those stems in labelled answers.
    """
    return content_stems(text) - known - word_list("talk")


def english_share(found: list[str]) -> float:
    """Return the share of English function words; ordinary prose has about 0.45, other languages under 0.1."""
    function_words = word_list("function_words")
    return sum(word in function_words for word in found) / max(1, len(found))


def is_scrambled(text: str) -> bool:
    """Return whether plain text is not made of words: codes, digits for letters, alphabets mixed within words."""
    found = words(_ADDRESS.sub(" ", text))
    letters = sum(map(len, found))
    long = sum(len(word) for word in found if len(word) >= _LONG_WORD)
    mixed = sum(_mixes(word) for word in found)
    return bool(found) and (long > _MIXED_SHARE * letters or mixed > _MIXED_SHARE * len(found))


def _mixes(word: str) -> bool:
    alphabets = {unicodedata.name(c, "").partition(" ")[0] for c in word if c.isalpha()}
    return len(alphabets) > 1 or (bool(alphabets) and any(c.isdigit() for c in word))


@functools.cache
def word_list(name: str) -> frozenset[str]:
    """Return one of the lists in ``lexicon``."""
    return frozenset(files(__package__).joinpath("lexicon", f"{name}.txt").read_text(encoding="utf-8").split())
