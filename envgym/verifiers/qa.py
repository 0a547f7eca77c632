"""Question answering: exact match and token F1 after the SQuAD normalisation.

Source: the evaluation scripts of SQuAD 1.1 (Rajpurkar et al. 2016) and HotpotQA (Yang et al. 2018). Deviations:
Unicode punctuation is removed too; compatibility characters become plain ones where no number changes; a point,
a slash or a power sign between digits stays, and so does a minus before a number, so that 1.5 is not 15; an answer
that consists of articles alone (vitamin "A") keeps them; and an empty answer matches nothing, not even an
empty gold.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

__all__ = ["exact_match", "f1_score", "match_answer", "normalise_answer"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CLOSED_ANSWERS = frozenset({"yes", "no", "noanswer"})
_LOOKS = frozenset(
    {"<wide>", "<narrow>", "<font>", "<noBreak>", "<small>", "<vertical>"} | {"<isolated>", "<initial>"}
)
_LOOKS |= {"<medial>", "<final>"}
"""Compatibility decompositions that change how a character looks, not what it says."""
_NUMBER_MARK = re.compile(r"(?<=\d)[./^](?=\d)|(?<![^\s(\[])-(?=[\d.])")
_HIDDEN = {".": "\ue000", "/": "\ue001", "^": "\ue002", "-": "\ue003"}
_SHOWN = str.maketrans({hidden: mark for mark, hidden in _HIDDEN.items()})
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_RAISED = re.compile(r"(.)([\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+|[\u2080-\u2089]+)", re.DOTALL)
_MINUS = str.maketrans("\u2212\u2010\u2011", "---")


def normalise_answer(text: str) -> str:
    """Return ``text`` in lower case without punctuation, articles and surplus white space, in this order."""
    lowered = _plain_characters(text).lower()
    marked = _NUMBER_MARK.sub(lambda m: _HIDDEN[m[0]], _THOUSANDS.sub("", lowered))
    kept = (marked.translate(_NO_PUNCTUATION) if text.isascii() else _without_punctuation(marked)).translate(
        _SHOWN
    )
    without_articles = " ".join(_ARTICLES.sub(" ", kept).split())
    return without_articles or " ".join(kept.split())


def _without_punctuation(text: str) -> str:
    return "".join(c for c in text if c not in string.punctuation and not unicodedata.category(c).startswith("P"))


def _plain_characters(text: str) -> str:
    """Return ``text`` with compatibility characters written plainly, so that each keeps its value.

    NFKC would write a raised, lowered or circled digit like any other, and 10 to the power of 2 as 102. Here a
    raised digit after a digit is a power, a lowered one stays, a circled one is a word of its own, and a fraction
    keeps its slash.
    """
    if text.isascii():
        return text
    text = _RAISED.sub(_scripts, unicodedata.normalize("NFC", text.translate(_MINUS)))
    plain = [_plain_character(c, before) for c, before in zip(text, " " + text, strict=False)]
    return unicodedata.normalize("NFC", "".join(plain))


def _scripts(match: re.Match[str]) -> str:
    r"""Return the digits of m\u00b2 and H\u2082O on the line, a power as ``^2``, and any other script as it is."""
    before, digits = match[1], match[2]
    if before.isalpha():
        return before + unicodedata.normalize("NFKC", digits)
    is_power = unicodedata.decomposition(digits[0]).startswith("<super>")
    return f"{before}^{unicodedata.normalize('NFKC', digits)}" if before.isdecimal() and is_power else match[0]


def _plain_character(character: str, before: str) -> str:
    kind, _, _ = unicodedata.decomposition(character).partition(" ")
    if not kind.startswith("<") or (kind in ("<super>", "<sub>") and character.isdigit()):
        return character
    written = unicodedata.normalize("NFKC", character)
    if kind in _LOOKS:
        return written
    if kind == "<fraction>":
        return (" " if before.isdecimal() else "") + written.replace("\u2044", "/")
    if written.strip("().").isdecimal():  # a circled or bracketed number is a word of its own
        return f" {written} "
    return written if all(c.isalpha() or c.isspace() for c in written) and kind != "<square>" else character


def exact_match(prediction: str, golds: str | Sequence[str]) -> bool:
    """Return whether ``prediction`` equals any of ``golds`` after normalisation. Empty answers never match."""
    return match_answer(prediction, golds)[0]


def f1_score(prediction: str, golds: str | Sequence[str]) -> float:
    """Return the best token F1 of ``prediction`` over ``golds``, in [0, 1].

    It is 0 if either side is empty, or if one side is yes/no and the other is not the same word.
    """
    return match_answer(prediction, golds)[1]


def match_answer(prediction: str, golds: str | Sequence[str]) -> tuple[bool, float]:
    """Return ``exact_match`` and ``f1_score`` of an answer, each side normalised once."""
    answer, wanted = normalise_answer(prediction), [normalise_answer(gold) for gold in _as_list(golds)]
    return bool(answer) and answer in wanted, max((_token_f1(answer, gold) for gold in wanted), default=0.0)


def _as_list(golds: str | Sequence[str]) -> Sequence[str]:
    return [golds] if isinstance(golds, str) else golds


def _token_f1(answer: str, gold: str) -> float:
    if answer != gold and (answer in _CLOSED_ANSWERS or gold in _CLOSED_ANSWERS):
        return 0.0
    if answer == gold:
        return float(bool(answer))
    answer_tokens, gold_tokens = answer.split(), gold.split()
    shared = (Counter(answer_tokens) & Counter(gold_tokens)).total()
    return 2 * shared / (len(answer_tokens) + len(gold_tokens)) if shared else 0.0
