"""Staged comparison of a prediction with a gold answer."""

from __future__ import annotations

import time

from envgym.errors import DataError
from envgym.verifiers.math.extract import extract_answer
from envgym.verifiers.math.plain import plain_ratio
from envgym.verifiers.math.verdict import Decision, Stage, Verdict

__all__ = ["check_gold", "verify_math"]


def verify_math(prediction: str, gold: str) -> Verdict:
    """Compare the final answer in ``prediction`` with ``gold``. Never raises on any text."""
    start = time.perf_counter()
    verdict, stage, reason = _decide(prediction, gold)
    return Verdict(verdict, stage, reason, time.perf_counter() - start)


def check_gold(gold: str) -> None:
    """Raise ``DataError`` when ``gold`` cannot be read, so that a data set fails when it is loaded."""
    if not gold.strip():
        raise DataError(f"the gold answer {gold!r} cannot be read: it is empty")


def _decide(prediction: str, gold: str) -> tuple[Decision, Stage, str]:
    if not gold.strip():
        return Decision.GOLD_ERROR, Stage.PARSING, "the gold is empty"
    answer = extract_answer(prediction)
    if answer is None:
        return Decision.UNPARSEABLE, Stage.EXTRACTION, "no final answer"
    left, right = plain_ratio(answer), plain_ratio(gold)
    if left is not None and right is not None:
        same = left[0] * right[1] == right[0] * left[1]
        return (Decision.CORRECT if same else Decision.INCORRECT), Stage.RATIONAL, "exact rationals"
    same = "".join(answer.split()) == "".join(gold.split())
    return (Decision.CORRECT if same else Decision.INCORRECT), Stage.STRING, "normalised strings"
