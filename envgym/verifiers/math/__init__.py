"""Mathematical equivalence of a model's final answer and a reference."""

from envgym.verifiers.math.extract import extract_answer
from envgym.verifiers.math.verdict import Decision, Stage, Verdict
from envgym.verifiers.math.verify import check_gold, verify_math

__all__ = ["Decision", "Stage", "Verdict", "check_gold", "extract_answer", "verify_math"]
