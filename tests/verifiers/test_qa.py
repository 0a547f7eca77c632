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
