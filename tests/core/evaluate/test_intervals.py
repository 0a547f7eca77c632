"""Intervals, against values worked out by hand or by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.evaluate import Interval, mean_interval, mean_of_means, paired_gain

QUICK = settings(deadline=None, max_examples=15)
SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_wilson_by_hand(successes: int, n: int, low: float, high: float) -> None:
    """Wilson 1927: (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.95996."""
    interval = mean_interval([1.0] * successes + [0.0] * (n - successes))
    assert interval.mean == successes / n
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert interval.n == n


def test_wilson_covers_what_it_says() -> None:
    """Of 2,000 samples of 30 coins that fall with 0.9, about 95% have the truth inside."""
    rng = np.random.default_rng(0)
    samples = rng.random((2000, 30)) < 0.9
    inside = [i.low <= 0.9 <= i.high for i in (mean_interval([float(x) for x in s]) for s in samples)]
    assert 0.93 < np.mean(inside) < 0.985


def test_the_bootstrap_agrees_with_the_normal_interval_where_that_holds() -> None:
    values = np.random.default_rng(1).random(400)
    interval = mean_interval(list(values))
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.003)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.003)


@QUICK
@given(SCORES)
def test_the_mean_lies_in_its_interval_and_the_interval_in_the_scores(values: list[float]) -> None:
    interval = mean_interval(values)
    assert interval.low - 1e-9 <= interval.mean <= interval.high + 1e-9
    assert 0 <= interval.low <= interval.high <= 1 + 1e-9
    assert mean_interval(values) == interval


def test_gains_are_paired() -> None:
    """The spread between problems cancels: unpaired, this gain of 0.1 would drown in it."""
    before = [float(x) for x in np.linspace(0, 0.9, 50)]
    after = [x + 0.1 + 0.01 * (-1) ** i for i, x in enumerate(before)]
    gain = paired_gain(before, after)
    assert gain.mean == pytest.approx(0.1)
    assert 0.095 < gain.low < 0.1 < gain.high < 0.105
    assert paired_gain(after, before).mean == pytest.approx(-0.1)
    with pytest.raises(ValueError, match="zip"):
        paired_gain([1.0], [1.0, 0.0])


def test_environments_weigh_the_same_whatever_their_number_of_problems() -> None:
    interval = mean_of_means([[1.0] * 98 + [0.0] * 2, [0.0, 0.0], []])
    assert interval.mean == pytest.approx(0.49)
    assert interval.n == 102
    assert interval.low > 0.4
    assert interval.high < 0.5 + 1e-9


def test_no_problems_have_no_score() -> None:
    for empty in (mean_interval([]), mean_of_means([]), mean_of_means([[]]), paired_gain([], [])):
        assert math.isnan(empty.mean)
        assert empty.n == 0
        assert empty.as_dict() == {"mean": None, "low": None, "high": None, "n": 0}


def test_an_interval_reads_as_people_write_it() -> None:
    assert str(Interval(mean=0.5, low=0.25, high=0.75, n=4)) == "0.500 [0.250, 0.750]"
