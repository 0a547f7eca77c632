"""Printed output: compared line by line, numbers by value, nothing cut short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envgym.verifiers.code_tests import same_output


@given(st.text())
def test_an_output_is_its_own_match(text: str) -> None:
    assert same_output(text, text)
    assert same_output(text, text + "  \n\n")


@pytest.mark.parametrize(
    ("expected", "actual"),
    [("1.50\n", "1.5"), ("a 1\nb 2\n", "a  1\r\nb 2.0"), ("1e3", "1000"), ("-0", "0")],
)
def test_layout_and_notation_do_not_count(expected: str, actual: str) -> None:
    assert same_output(expected, actual)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("1\n2\n", "1\n"),
        ("1\n", "1\n2\n"),
        ("", "0"),
        ("0.1", "0.1000001"),
        ("a b", "ab"),
        ("1", "one"),
        ("nan", "NaN"),
        ("1000", "1_000"),
        ("1\n\n2", "1\n2"),
        ("9" * 500, "9" * 499 + "8"),
    ],
)
def test_another_output_does_not_match(expected: str, actual: str) -> None:
    assert not same_output(expected, actual)


def test_a_huge_exponent_is_answered_at_once() -> None:
    assert not same_output("5", "1e999999999")
