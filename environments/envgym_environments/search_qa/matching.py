"""Match answers with golds: exact match and F1, of one answer or of a set.

A set is matched entity by entity, in any order; naming entities that do not belong to it gains nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from envgym.verifiers.qa import match_answer, normalise_answer

__all__ = ["score_answer"]

_SEPARATOR = re.compile(r"[;,\n]")


def score_answer(prediction: str, golds: Sequence[str], *, all_of: bool) -> tuple[float, float]:
    """Compare a final answer with the golds.

    Args:
        prediction: the model's answer.
        golds: every spelling of the one answer, or with ``all_of`` every member of the set.
        all_of: require the whole set.

    Returns:
        exact match, 0 or 1, and F1 in [0, 1]: over words for one answer, over entities for a set.
    """
    if not all_of:
        exact, f1 = match_answer(prediction, golds)
        return float(exact), f1
    given = {normalise_answer(part) for part in _SEPARATOR.split(prediction)} - {""}
    wanted = {normalise_answer(gold) for gold in golds}
    shared = len(given & wanted)
    return float(bool(given) and given == wanted), 2 * shared / max(1, len(given) + len(wanted))
