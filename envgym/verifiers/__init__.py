"""Verifiers that any environment may reuse: mathematical equivalence and question answering.

Names are imported on first use, so that a judge does not load the mathematics engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envgym.math_equivalence.final_answer import extract_answer
    from envgym.math_equivalence.verdict import Decision, Verdict, VerifierStage
    from envgym.math_equivalence.verify import check_gold, verify_math
    from envgym.verifiers.qa import exact_match, f1_score

__all__ = [
    "Decision",
    "Verdict",
    "VerifierStage",
    "check_gold",
    "exact_match",
    "extract_answer",
    "f1_score",
    "verify_math",
]

_MODULES = {
    "Decision": "envgym.math_equivalence.verdict",
    "VerifierStage": "envgym.math_equivalence.verdict",
    "Verdict": "envgym.math_equivalence.verdict",
    "check_gold": "envgym.math_equivalence.verify",
    "exact_match": "envgym.verifiers.qa",
    "extract_answer": "envgym.math_equivalence.final_answer",
    "f1_score": "envgym.verifiers.qa",
    "verify_math": "envgym.math_equivalence.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
