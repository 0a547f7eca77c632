"""Every GSM8K gold and thousands of generated ones, in the notations of one number, and nearest wrong answers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction

import pytest

from envgym.verifiers import check_gold, verify_math
from envgym_environments.math_problems.env import FAMILIES


def _value(gold: str) -> Fraction:
    return Fraction(gold.replace(",", "").replace("$", ""))


def _spellings(gold: str) -> Iterator[str]:
    yield from (gold, f" {gold}\n", f"{gold}.", f"${gold}$", rf"\,{gold}\,", rf"{{{gold}}}")
    yield r"\left(" + gold.replace(",", "") + r"\right)"
    yield from (
        rf"reasoning \boxed{{{gold}}}",
        rf"<think>0</think><answer>{gold}</answer>",
        f"so\n#### {gold}",
    )
    value = _value(gold)
    yield f"{float(value):.2f}" if abs(value) < 10**12 and (value * 100).denominator == 1 else gold
    if value.denominator == 1:
        yield from (f"{int(value):,}", f"{int(value)}.0", rf"\frac{{{int(value) * 6}}}{{6}}")


def _mutations(gold: str) -> Iterator[str]:
    value = _value(gold)
    yield from (
        str(value + 1),
        str(value - 1),
        str(value * 10),
        str(value / 10),
        str(value * 100),
        str(value / 100),
    )
    if value:
        yield from (str(-value), f"-{abs(value)}" if value > 0 else str(abs(value)))
        if abs(value) != 1:
            yield str(1 / value)
    text = str(value)
    yield text + "1"
    yield from (
        text[:i] + text[i + 1] + text[i] + text[i + 2 :] for i in range(len(text) - 1) if text[i] != text[i + 1]
    )
    yield from (text[:i] + text[i + 1 :] for i in range(len(text)) if text.isdecimal() and len(text) > 1)


@pytest.fixture(params=["gsm8k", *FAMILIES])
def golds(request: pytest.FixtureRequest) -> list[str]:
    """All 8,792 of GSM8K, or 2,500 of a family, as many of each level."""
    if request.param == "gsm8k":
        golds: list[str] = request.getfixturevalue("gsm8k_golds")
        assert len(golds) == 8792
        return golds
    rng = random.Random(request.param)
    return [FAMILIES[request.param](rng, level).answer for level in range(1, 6) for _ in range(500)]


def test_every_gold_matches_itself_in_every_spelling(golds: list[str]) -> None:
    """No false negative: white space, dollar signs, a final dot, fences, separators."""
    distinct = set(golds)
    wrong = [
        (spelling, gold)
        for gold in distinct
        for spelling in _spellings(gold)
        if not verify_math(spelling, gold).correct
    ]
    assert wrong == []
    assert [gold for gold in golds if not verify_math(gold, gold).correct] == []
    for gold in distinct:
        check_gold(gold)


def test_no_mutation_of_a_gold_passes(golds: list[str]) -> None:
    """No false positive: one more or less, sign, swapped or dropped digits, reciprocal, powers of ten."""
    passed = []
    for gold in set(golds):
        value = _value(gold)
        for mutation in set(_mutations(gold)):
            try:
                same = Fraction(mutation) == value
            except (ValueError, ZeroDivisionError):
                same = False
            if verify_math(mutation, gold).correct is not same:
                passed.append((mutation, gold))
    assert passed == []
