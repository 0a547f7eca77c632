"""Check that the final answer is right and is evaluated."""

from __future__ import annotations

import asyncio
import functools
import re

from envgym.env.answers import fenced_answer, reference_of
from envgym.errors import VerifierError
from envgym.math_equivalence.plain import plain_ratio
from envgym.records import Trajectory
from envgym.verifiers import verify_math

__all__ = ["is_correct", "leaves_work"]

_PLAIN = re.compile(r"\$?-?[\d,]+(\.\d+)?(/\d+)?", re.ASCII)
_TIMES_TEN = re.compile(r"(?:\\times|\\cdot|[*×·])\s*10\s*(?:\^|\*\*)\s*\{?[+-]?\d+\}?", re.ASCII)
_BARS = re.compile(r"/|\\[dt]?frac|\\div|[÷∕⁄]")
_POWERS = re.compile(r"\^|\*\*|\\sqrt|[√²³]")


async def is_correct(trajectory: Trajectory) -> float:
    """Return 1 where the last message's fenced answer equals the gold and leaves no work undone, else 0.

    Raises:
        VerifierError: the verifier could not decide; the episode is missing data.
    """
    answer = fenced_answer(trajectory)
    reference = reference_of(trajectory.task)
    gold, unit = str(reference["answer"]), reference.get("unit")
    verify = functools.partial(
        verify_math,
        unit=unit if isinstance(unit, str) else None,
        percent=reference.get("percent") is True,
        rounded=reference.get("rounded") is True,
    )
    if answer is None or leaves_work(answer, gold):
        return 0.0
    prediction = f"<answer>{answer}</answer>"
    if plain_ratio(answer) is not None and plain_ratio(gold) is not None:
        verdict = verify(prediction, gold)
    else:  # in a thread, because computer algebra may take its whole time limit
        verdict = await asyncio.to_thread(verify, prediction, gold)
    if not verdict.decided:
        raise VerifierError(f"{verdict.verdict}: {verdict.reason}")
    return float(verdict.correct)


def leaves_work(answer: str, gold: str) -> bool:
    """Return whether ``answer`` restates the problem of a plain number: ``12/4`` for 3, ``2^10`` for 1024.

    A fraction may have one bar, and a power of ten may follow a number.
    """
    if not _PLAIN.fullmatch(gold):
        return False
    rest = _TIMES_TEN.sub("", answer)
    return len(_BARS.findall(rest)) > gold.count("/") or bool(_POWERS.search(rest))
