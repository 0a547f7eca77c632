"""Verifiers that any environment may reuse: mathematical equivalence and question answering."""

from envgym.verifiers.math import Decision, Stage, Verdict, check_gold, extract_answer, verify_math
from envgym.verifiers.qa import exact_match, f1_score

__all__ = [
    "Decision",
    "Stage",
    "Verdict",
    "check_gold",
    "exact_match",
    "extract_answer",
    "f1_score",
    "verify_math",
]
