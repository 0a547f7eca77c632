"""Question answering: exact match and token F1 after the SQuAD normalisation.

Source: the evaluation scripts of SQuAD 1.1 (Rajpurkar et al. 2016) and HotpotQA (Yang et al. 2018). Deviations:
Unicode punctuation is removed too; text is first normalised to NFKC; an answer that consists of articles alone
(vitamin "A") keeps them; and an empty answer matches nothing, not even an empty gold.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

__all__ = ["exact_match", "f1_score", "normalise_answer"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CLOSED_ANSWERS = frozenset({"yes", "no", "noanswer"})


def normalise_answer(text: str) -> str:
    """Return ``text`` in lower case without punctuation, articles and surplus white space, in this order."""
    lowered = unicodedata.normalize("NFKC", text).lower()
    kept = "".join(
        c for c in lowered if c not in string.punctuation and not unicodedata.category(c).startswith("P")
    )
    without_articles = " ".join(_ARTICLES.sub(" ", kept).split())
    return without_articles or " ".join(kept.split())


def exact_match(prediction: str, golds: str | Sequence[str]) -> bool:
    """Return whether ``prediction`` equals any of ``golds`` after normalisation. Empty answers never match."""
    answer = normalise_answer(prediction)
    return bool(answer) and any(answer == normalise_answer(gold) for gold in _as_list(golds))


def f1_score(prediction: str, golds: str | Sequence[str]) -> float:
    """Return the best token F1 of ``prediction`` over ``golds``, in [0, 1].

    It is 0 if either side is empty, or if one side is yes/no and the other is not the same word.
    """
    answer = normalise_answer(prediction)
    return max((_token_f1(answer, normalise_answer(gold)) for gold in _as_list(golds)), default=0.0)


def _as_list(golds: str | Sequence[str]) -> Sequence[str]:
    return [golds] if isinstance(golds, str) else golds


def _token_f1(answer: str, gold: str) -> float:
    if answer != gold and (answer in _CLOSED_ANSWERS or gold in _CLOSED_ANSWERS):
        return 0.0
    answer_tokens, gold_tokens = answer.split(), gold.split()
    shared = (Counter(answer_tokens) & Counter(gold_tokens)).total()
    return 2 * shared / (len(answer_tokens) + len(gold_tokens)) if shared else 0.0
