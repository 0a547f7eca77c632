"""What the verifiers' package offers, and what importing it costs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import envgym.verifiers
from envgym.errors import DataError
from envgym.verifiers import Decision, Verdict, VerifierStage, check_gold


def test_exports_are_sorted_and_documented() -> None:
    """``__all__`` is sorted, and every name in it resolves and has a docstring."""
    names = envgym.verifiers.__all__
    assert names == sorted(names)
    assert all(getattr(envgym.verifiers, name).__doc__ for name in names)


def test_importing_loads_no_computer_algebra() -> None:
    """Math-Verify, SymPy and mpmath belong to the worker process."""
    program = (
        "import sys\n"
        "from envgym.verifiers import verify_math\n"
        "assert verify_math('1/2', '0.5').correct and verify_math(r'\\sqrt8', r'2\\sqrt2').correct\n"
        "assert verify_math(r'\\sqrt{3+2\\sqrt2}', r'1+\\sqrt2', timeout=10).correct\n"
        "print(sorted({'math_verify', 'sympy', 'mpmath', 'torch'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert result.stdout == b"[]\n"


@pytest.mark.parametrize(
    ("module", "package", "allowed"),
    [
        (
            "envgym.verifiers.judge",
            "envgym.math_equivalence",
            {"envgym.math_equivalence.boxes", "envgym.math_equivalence.final_answer"},
        ),
        ("envgym.math_equivalence.verify", "envgym.verifiers", set()),
        ("envgym.math_equivalence.verify", "lark", set()),
    ],
)
def test_a_verifier_loads_no_other(module: str, package: str, allowed: set[str]) -> None:
    """A judge loads no mathematics but the reader of final answers; mathematics loads no other verifier."""
    program = f"import sys, {module}; print(*(name for name in sys.modules if name.startswith({package + '.'!r})))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True, text=True
    )
    assert set(result.stdout.split()) == allowed


@pytest.mark.parametrize("decision", Decision)
def test_only_three_decisions_are_about_the_prediction(decision: Decision) -> None:
    """A timeout, a gold error and a verifier error are missing data; only ``correct`` is correct."""
    verdict = Verdict(decision, VerifierStage.STRING, "", 0.0)
    assert verdict.correct is (decision == "correct")
    assert verdict.decided is (decision in {"correct", "incorrect", "unparseable"})


@pytest.mark.parametrize(
    "gold", ["12", r"\frac{1}{2}", "(1,2]", "yes", "10 cm", r"\boxed{3}", r"\int_0^1 x\,dx", "x=2"]
)
def test_a_readable_gold_passes_the_check(gold: str) -> None:
    """Plain, structured, worded and exotic golds."""
    check_gold(gold, timeout=20.0)


@pytest.mark.parametrize(
    "gold", ["", "  ", r"\frac{1}{", r"\foo", "1/0", "9^{9^{9^9}}", r"\boxed{3", "(1,2", "9" * 300]
)
def test_an_unreadable_gold_is_an_error_at_load_time(gold: str) -> None:
    """The error names the gold, the reason and what to do."""
    with pytest.raises(DataError, match="correct or drop the row"):
        check_gold(gold)
    assert envgym.verifiers.verify_math("12", gold).verdict == "gold_error"
