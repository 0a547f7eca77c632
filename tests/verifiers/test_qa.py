"""SQuAD normalisation, exact match and token F1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envgym.verifiers import exact_match, f1_score
from envgym.verifiers.qa import normalise_answer


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The  Beatles!", "beatles"),
        ("a cat, an owl and the dog", "cat owl and dog"),
        ("“Don’t” — stop…", "dont stop"),
        ("well-known", "wellknown"),
        ("ＡＢＣ１２", "abc12"),
        ("¿Qué?", "qué"),
        ("A", "a"),
        ("theatre", "theatre"),
        ("?!", ""),
    ],
)
def test_normalises_in_squad_order(text: str, normalised: str) -> None:
    """Lower case, punctuation (Unicode too), articles, spaces."""
    assert normalise_answer(text) == normalised


@pytest.mark.parametrize(
    ("written", "other"),
    [
        ("10\u00b2", "102"),
        ("7\u00b3", "73"),
        ("10\u207b\u00b2", "102"),
        ("10\u2082", "102"),
        ("1\u2460", "11"),
        ("\u2460\u2461", "12"),
        ("\u24885", "15"),
        ("\u00bd", "12"),
        ("\u2153", "13"),
        ("3\u00bd", "312"),
        ("10^2", "102"),
        ("1.5", "15"),
        ("1/2", "12"),
        ("-5", "5"),
        ("\u2212 5", "-5"),
        ("5\u33a0", "5 cm2"),
    ],
)
def test_no_number_changes_its_value(written: str, other: str) -> None:
    """Raised, lowered, circled and stacked digits, marks inside a number, and its sign."""
    assert not exact_match(written, other)
    assert f1_score(written, other) < 1.0
    assert exact_match(written, written)


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("10\u00b2", "10^2"),
        ("\u2153", "1/3"),
        ("2\u00bd", "2 1/2"),
        ("\u2463", "4"),
        ("H\u2082O", "H2O"),
        ("5 m\u00b2", "5 m2"),
        ("\u22125", "-5"),
        ("12,500", "12500"),
        ("\U0001d7cf\U0001d7d0", "12"),
        ("\ufb01nd", "find"),
        ("well-known", "wellknown"),
        ("1914-1918", "19141918"),
    ],
)
def test_the_same_value_in_other_characters(written: str, plain: str) -> None:
    """What only looks different stays equal."""
    assert exact_match(written, plain)


@given(st.integers(0, 10**6), st.integers(0, 10**4))
def test_a_power_is_never_the_digits_in_a_row(base: int, exponent: int) -> None:
    """For every base and exponent, in raised digits and with a sign."""
    raised = str(exponent).translate(
        str.maketrans("0123456789", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
    )
    assert exact_match(f"{base}{raised}", f"{base}^{exponent}")
    assert not exact_match(f"{base}{raised}", f"{base}{exponent}")


def test_exact_match_takes_any_gold() -> None:
    """One of several golds is enough; a part of a gold is not."""
    assert exact_match("the Eiffel Tower.", ["Tower of London", "Eiffel tower"])
    assert not exact_match("Eiffel", ["Eiffel tower"])
    assert exact_match("42", "42")


@pytest.mark.parametrize("empty", ["", "   ", "?!"])
def test_an_empty_answer_matches_nothing(empty: str) -> None:
    """Not even an empty gold; and no golds match nothing."""
    assert not exact_match(empty, [empty, "", "x"])
    assert f1_score(empty, [empty, "", "x"]) == 0.0
    assert not exact_match("x", [])
    assert f1_score("x", []) == 0.0


def test_f1_by_hand() -> None:
    """Two of three tokens shared with a gold of four: 2 * 2 / (3 + 4)."""
    assert f1_score("big red car", "small red sports car") == pytest.approx(4 / 7)
    assert f1_score("red red", "red") == pytest.approx(2 / 3)
    assert f1_score("green", ["red", "green"]) == 1.0


@pytest.mark.parametrize(("prediction", "gold"), [("no", "yes"), ("yes it is", "yes"), ("no", "no idea")])
def test_f1_is_zero_on_a_yes_no_mismatch(prediction: str, gold: str) -> None:
    """Overlap of a closed answer with anything else earns nothing."""
    assert f1_score(prediction, gold) == 0.0
    assert f1_score("Yes.", "yes") == 1.0


@given(st.text(), st.text())
def test_scores_are_symmetric_bounded_and_idempotent(left: str, right: str) -> None:
    """F1 is in [0, 1] and symmetric; equal answers score 1; normalising twice changes nothing."""
    score = f1_score(left, right)
    assert 0.0 <= score <= 1.0
    assert score == f1_score(right, left)
    assert exact_match(left, right) == exact_match(right, left)
    assert not exact_match(left, right) or score == 1.0
    assert exact_match(left, left) == bool(normalise_answer(left))
