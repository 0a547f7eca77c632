"""Result of a verification: the decision, the stage that took it, the reason, and the time it took."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Decision", "VerifierStage", "Verdict"]


class Decision(enum.StrEnum):
    """Outcome of a verification."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    UNPARSEABLE = "unparseable"
    """No answer can be read, or it is over a cap. A wrong answer, counted separately."""
    TIMEOUT = "timeout"
    """Computer algebra exceeded its time limit. Missing data, not a wrong answer."""
    GOLD_ERROR = "gold_error"
    """The reference cannot be read. A fault of the data set, not a wrong answer."""
    VERIFIER_ERROR = "verifier_error"
    """The worker process failed. Missing data, not a wrong answer."""


class VerifierStage(enum.StrEnum):
    """Stages that can decide a verification, cheapest first."""

    EXTRACTION = "extraction"
    CAPS = "caps"
    RATIONAL = "rational"
    PARSING = "parsing"
    STRING = "string"
    FORM = "form"
    STRUCTURE = "structure"
    ALGEBRA = "algebra"
    COMPUTER_ALGEBRA = "computer_algebra"


_UNDECIDED = frozenset({Decision.TIMEOUT, Decision.GOLD_ERROR, Decision.VERIFIER_ERROR})


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of one verification."""

    verdict: Decision
    stage: VerifierStage
    reason: str
    """One line for a log or a report."""
    elapsed: float
    """Wall-clock seconds from the call to the answer."""

    @property
    def correct(self) -> bool:
        """True when the prediction is equivalent to the gold."""
        return self.verdict is Decision.CORRECT

    @property
    def decided(self) -> bool:
        """True when the verdict is about the prediction; otherwise the episode has no reward, rather than 0."""
        return self.verdict not in _UNDECIDED
