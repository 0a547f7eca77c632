"""Agreement with hand-labelled pairs in many notations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from envgym.verifiers import Verdict, verify_math

Rows = Callable[[str], list[dict[str, Any]]]
Verify = Callable[[dict[str, Any]], Verdict]


@pytest.mark.parametrize(("name", "expected"), [("equiv", True), ("nonequiv", False)])
def test_agrees_with_the_labels(labelled: Rows, verify_row: Verify, name: str, expected: bool) -> None:
    """At least 99.5 % of a set of 300 pairs or more, and every verdict is about the prediction."""
    rows = labelled(name)
    assert len(rows) >= 300
    verdicts = [(row, verify_row(row)) for row in rows]
    assert [row for row, verdict in verdicts if not verdict.decided] == []
    wrong = [(row, verdict) for row, verdict in verdicts if verdict.correct is not expected]
    assert len(wrong) <= 0.005 * len(rows), wrong


@pytest.mark.parametrize("name", ["equiv", "nonequiv"])
def test_every_gold_verifies_against_itself(labelled: Rows, verify_row: Verify, name: str) -> None:
    """verify(g, g) holds for each gold that can be read at all."""
    for row in labelled(name):
        verdict = verify_row({**row, "prediction": row["gold"]})
        assert verdict.correct, (row, verdict)


def test_equivalence_is_symmetric(labelled: Rows, verify_row: Verify) -> None:
    """Swapping the sides changes nothing, save where the prediction may not restate the problem.

    Rows that hold in one direction only: a gold that names its values or is a capital letter of multiple choice.
    """
    plain = [row for name in ("equiv", "nonequiv") for row in labelled(name) if not row.get("rounded")]
    checked = 0
    for row in plain:
        verdict = verify_row(row)
        swapped = verify_row({**row, "prediction": row["gold"], "gold": row["prediction"]})
        if swapped.verdict == "gold_error" or "form" in (verdict.stage, swapped.stage):
            continue
        if (
            row.get("one_way")
            or row.get("unit") == "*"
            or any(mark in row["prediction"] for mark in ("boxed", "answer", "think", "####"))
        ):
            continue
        checked += 1
        assert verdict.correct is swapped.correct, (row, verdict, swapped)
    assert checked > 600


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1-1/e", "1+1/e"),
        ("1/2^99", "1/2^98"),
        ("10^-20", "2·10^-20"),
        ("4", r"4\sqrt2"),
        ("5", "9=5"),
        ("(1,2)", "{1,2}"),
        ("(1,2)", r"\{1,2\}"),
        ("10 cm", "10 m"),
        ("y=2x+1", "y=2x+3"),
        ("11", "1"),
        ("50", r"50\%"),
    ],
)
def test_pairs_that_other_verifiers_accept_are_rejected(left: str, right: str) -> None:
    """Math-Verify 0.9.0 and reasoning-gym call these equal, in one order or the other."""
    for prediction, gold in ((left, right), (right, left)):
        assert verify_math(prediction, gold).verdict == "incorrect"
        assert verify_math(rf"So \boxed{{{prediction}}}.", gold).verdict == "incorrect"


@pytest.mark.parametrize("percent", [False, True])
def test_fifty_percent_is_a_half_or_fifty_but_never_both(percent: bool) -> None:
    """Which of the two is the task's metadata."""
    half, fifty = (verify_math(p, r"50\%", percent=percent).correct for p in ("0.5", "50"))
    assert (half, fifty) == ((False, True) if percent else (True, False))


@pytest.mark.parametrize(
    ("prediction", "gold"),
    [
        (r"\sum_{k=1}^{10}k", "55"),
        ("5!", "120"),
        (r"\int_0^1 2x\,dx", "1"),
        (r"\binom52", "10"),
        ("19*23", "437"),
    ],
)
def test_restating_the_problem_is_no_answer_unless_the_gold_does(prediction: str, gold: str) -> None:
    """An evaluated answer to an unevaluated gold is fine; the other way round is not."""
    verdict = verify_math(prediction, gold)
    assert (verdict.verdict, verdict.stage) == ("incorrect", "form")
    assert verify_math(prediction, prediction).correct
    assert verify_math(gold, prediction).correct


def test_two_different_lines_are_not_one_answer() -> None:
    """Unfenced equations on two lines: neither is the final answer."""
    assert verify_math("y=2x+1\ny=2x+3", "y=2x+3").verdict == "unparseable"
