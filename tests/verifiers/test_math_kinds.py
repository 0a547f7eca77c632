"""Kinds of answers as models and data sets write them, each with right ones and the wrong ones beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from envgym.errors import DataError
from envgym.verifiers import Verdict, check_gold, extract_answer, verify_math

Rows = Callable[[str], list[dict[str, Any]]]
Verify = Callable[[dict[str, Any]], Verdict]


def test_every_kind_has_right_and_wrong_answers(labelled: Rows) -> None:
    """Three of a kind at least; a rule that accepts everything fails half of them."""
    count = Counter(row["kind"] for row in labelled("kinds"))
    assert len(count) >= 25
    assert min(count.values()) >= 5
    right = Counter(row["kind"] for row in labelled("kinds") if row["right"])
    assert all(right[kind] and count[kind] > right[kind] for kind in count)


def test_the_verdict_is_the_label(labelled: Rows, verify_row: Verify) -> None:
    """Every row agrees, and every verdict is about the prediction."""
    verdicts = [(row, verify_row(row)) for row in labelled("kinds")]
    assert [pair for pair in verdicts if pair[1].correct is not pair[0]["right"] or not pair[1].decided] == []


def test_every_gold_loads_and_equals_itself(labelled: Rows, verify_row: Verify) -> None:
    """A gold that is accepted at load is answered by itself."""
    for row in labelled("kinds"):
        check_gold(row["gold"], unit=row.get("unit"))
        boxed = row["gold"] if "boxed" in row["gold"] else rf"\boxed{{{row['gold']}}}"
        assert verify_row({**row, "prediction": boxed}).correct, row


@pytest.mark.parametrize(
    "gold",
    [
        r"\frac{1}{0}",
        r"\tan(90^\circ",
        r"(-3)!",
        r"\tan 90^\circ",
        r"\ln 0",
        "20000!",
        r"\boxed{\boxed{1}\boxed{2}}",
        r"\cancel{5}",
        "9^{9^{9^9}}",
        "5 +",
    ],
)
def test_a_gold_without_a_value_is_an_error_at_load(gold: str) -> None:
    """Otherwise every answer to it would be wrong, and nothing would say why."""
    with pytest.raises(DataError, match="cannot be read"):
        check_gold(gold)


def test_a_unit_that_cannot_be_read_is_an_error_at_load() -> None:
    """The unit of a task is read beside every answer."""
    check_gold("5", unit="cm^2")
    check_gold("5", unit="*")
    with pytest.raises(DataError):
        check_gold("5", unit="^^")


@pytest.mark.parametrize(
    "hedge", ["6, 7", "6 or 7", "6=7", "x=6=7", "a+b=7", r"\boxed{6}\boxed{7}", "7 6", r"\pm 7"]
)
@pytest.mark.parametrize("gold", ["6", "7"])
def test_a_hedge_earns_nothing(hedge: str, gold: str) -> None:
    """Several answers in one box are not the right one."""
    assert not verify_math(rf"\boxed{{{hedge}}}", gold).correct


@pytest.mark.parametrize(
    "word", ["negative", "squared", "wrong", "dozen", "not", "half", "or", "plus", "hundredths"]
)
def test_a_word_that_changes_a_number_is_no_unit(word: str) -> None:
    """Where units are ignored, only units are."""
    assert not verify_math(rf"\boxed{{8\text{{ {word}}}}}", "8", unit="*").correct
    assert verify_math(r"\boxed{8\text{ hats}}", "8", unit="*").correct


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{4}, \boxed{9}", "4, 9"),
        (r"\boxed{4} cats and \boxed{9} dogs", "4, 9"),
        (r"$\boxed{4}$ \text{ or } $\boxed{9}$", "4, 9"),
        (r"\boxed{4}, and \boxed{4}", "4"),
        (r"\boxed{4}. Then \boxed{9}", "9"),
        (r"\boxed{4} and no, \boxed{9}", "9"),
        (r"\boxed{4} is wrong and \boxed{9}", "9"),
        (r"\boxed{\boxed{4}}", "4"),
        (r"\boxed{x = \boxed{4}}", "x = 4"),
        (r"\boxed{\boxed{4} and \boxed{9}}", None),
        (r"\boxed{4} and \boxed{", None),
        (r"\boxed 4", "4"),
        (r"\boxed{4} as said with \boxed.", "4"),
        ("Thus, the answer is: 4", "4"),
        ("**Final Answer:** 4", "4"),
        ("I doubt that the answer is 4", "I doubt that the answer is 4"),
    ],
)
def test_boxes_and_sayings(text: str, answer: str | None) -> None:
    """Boxes that a list joins are one answer, nested ones are one or none, and a last line may say the answer."""
    assert extract_answer(text) == answer


def test_fenced_only() -> None:
    """A caller that asks for a fence gets no bare line."""
    assert extract_answer("The answer is 4", fenced=True) is None
    assert extract_answer("<answer>4</answer>", fenced=True) == "4"
