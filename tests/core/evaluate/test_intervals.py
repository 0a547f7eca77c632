"""Intervals, against values worked out by hand or by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.evaluate import Interval, mean_interval, mean_of, paired_gain

QUICK = settings(deadline=None, max_examples=15)
SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.4439, 0.9748),
        (0, 10, 0.0, 0.3085),
        (10, 10, 0.6915, 1.0),
        (1, 1, 0.025, 1.0),
        (50, 100, 0.3983, 0.6017),
    ],
)
def test_exact_limits_of_a_share(successes: int, n: int, low: float, high: float) -> None:
    """Clopper and Pearson 1934, from published tables."""
    interval = mean_interval([1.0] * successes + [0.0] * (n - successes))
    assert interval.mean == successes / n
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert interval.n == n


def _coverage(draw: Callable[[np.random.Generator], tuple[Interval, float]], repetitions: int = 1500) -> float:
    rng = np.random.default_rng(0)
    drawn = (draw(rng) for _ in range(repetitions))
    return float(np.mean([i.low <= truth <= i.high for i, truth in drawn]))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.97])
def test_means_cover_near_the_ends_too(share: float) -> None:
    def binary(rng: np.random.Generator) -> tuple[Interval, float]:
        return mean_interval((rng.random(20) < share).astype(float).tolist()), share

    def averaged(rng: np.random.Generator) -> tuple[Interval, float]:
        return mean_interval((rng.binomial(2, share, 20) / 2).tolist()), share

    assert _coverage(binary) > 0.93
    assert _coverage(averaged) > 0.93


@pytest.mark.parametrize(("n", "share"), [(20, 0.9), (100, 0.98), (100, 0.02)])
@pytest.mark.parametrize("between", [0.0, 0.3, 0.7])
def test_means_and_gains_of_signed_scores_cover(n: int, share: float, between: float) -> None:
    """Scores of 1 alone are no share of 0 and 1 where -1 is possible: the interval has room for it."""
    weights = [(1 - share) * (1 - between), (1 - share) * between, share]
    truth = weights[2] - weights[0]

    def level(rng: np.random.Generator) -> tuple[Interval, float]:
        return mean_interval(rng.choice([-1.0, 0.0, 1.0], n, p=weights).tolist(), (-1.0, 1.0)), truth

    def gain(rng: np.random.Generator) -> tuple[Interval, float]:
        return paired_gain(rng.choice([-1.0, 0.0, 1.0], n, p=weights).tolist(), [1.0] * n, (-1.0, 1.0)), 1 - truth

    assert _coverage(level) > 0.93
    assert _coverage(gain) > 0.93


@QUICK
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=20), st.sampled_from([-1.0, 0.0, 2.0]))
def test_a_share_has_its_interval_wherever_the_ends_are(values: list[float], low: float) -> None:
    share, span = mean_interval(values), (low, low + 2)
    moved = [low + 2 * value for value in values]
    mean, gain = mean_interval(moved, span), paired_gain(moved, moved[::-1], span)
    assert (mean.low, mean.high) == (pytest.approx(low + 2 * share.low), pytest.approx(low + 2 * share.high))
    expected = paired_gain(values, values[::-1])
    assert (gain.low, gain.high) == (pytest.approx(2 * expected.low), pytest.approx(2 * expected.high))


@pytest.mark.parametrize(("old", "new"), [(0.02, 0.95), (0.5, 0.6), (0.98, 0.99)])
def test_paired_gains_cover(old: float, new: float) -> None:
    """Half of the problems are as hard after as before, the rest are drawn anew."""

    def draw(rng: np.random.Generator) -> tuple[Interval, float]:
        luck = rng.random(20)
        again = np.where(rng.random(20) < 0.5, luck, rng.random(20))
        return paired_gain((luck < old).astype(float).tolist(), (again < new).astype(float).tolist()), new - old

    assert _coverage(draw) > 0.93


def test_means_over_environments_cover_where_some_are_perfect() -> None:
    levels = (1.0, 0.98, 0.02, 0.5)

    def draw(rng: np.random.Generator) -> tuple[Interval, float]:
        parts = [mean_interval((rng.random(20) < level).astype(float).tolist()) for level in levels]
        return mean_of(parts), sum(levels) / 4

    assert _coverage(draw) > 0.93


@QUICK
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=12), st.sampled_from([0.0, 0.3, 1.0]))
def test_no_interval_has_no_width(values: list[float], constant: float) -> None:
    """Equal scores, before, after and both, still leave room for other problems."""
    same = [constant] * len(values)
    for interval in (
        mean_interval(same),
        mean_interval(values),
        paired_gain(same, same),
        paired_gain(values, same),
        mean_of([mean_interval(same)] * 4),
    ):
        assert interval.high - interval.low > 1e-3
        assert interval.low - 1e-9 <= interval.mean <= interval.high + 1e-9


@QUICK
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=20))
def test_a_loss_mirrors_a_gain(pairs: list[tuple[float, float]]) -> None:
    old, new = ([p[i] for p in pairs] for i in (0, 1))
    gain, loss = paired_gain(old, new), paired_gain(new, old)
    assert (loss.low, loss.high) == (pytest.approx(-gain.high), pytest.approx(-gain.low))


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
    assert 0.03 < gain.low < 0.1 < gain.high < 0.17
    assert paired_gain(after, before).mean == pytest.approx(-0.1)
    with pytest.raises(ValueError, match="zip"):
        paired_gain([1.0], [1.0, 0.0])


def test_environments_weigh_the_same_whatever_their_number_of_problems() -> None:
    interval = mean_of([mean_interval([1.0] * 98 + [0.0] * 2), mean_interval([0.0, 0.0]), mean_interval([])])
    assert interval.mean == pytest.approx(0.49)
    assert interval.n == 102


def test_no_problems_have_no_score() -> None:
    for empty in (mean_interval([]), mean_of([]), mean_of([mean_interval([])]), paired_gain([], [])):
        assert math.isnan(empty.mean)
        assert empty.n == 0
        assert empty.as_dict() == {"mean": None, "low": None, "high": None, "n": 0}


def test_an_interval_reads_as_people_write_it() -> None:
    assert str(Interval(mean=0.5, low=0.25, high=0.75, n=4)) == "0.500 [0.250, 0.750]"
