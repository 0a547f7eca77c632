"""Dynamic sampling: which groups are kept, what is carried over, what happens at the cap."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.errors import UserError
from envgym_trainers.objectives.ops.dynamic_sampling import (
    AtCap,
    DynamicSampling,
    Refill,
    RefillCounters,
    Signal,
    signal,
)

NAN = math.nan
MIXED, SOLVED, FAILED, LOST = [1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, NAN]


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (MIXED, Signal.KEPT),
        ([1.0, NAN, 0.0], Signal.KEPT),
        (SOLVED, Signal.ALL_SOLVED),
        ([NAN, 1.0, 1.0], Signal.ALL_SOLVED),
        (FAILED, Signal.ALL_FAILED),
        ([0.5, 0.5 + 1e-9], Signal.ALL_FAILED),
        (LOST, Signal.MISSING),
        ([], Signal.MISSING),
    ],
)
def test_signal(metrics, expected):
    """A group is judged by its valid members only."""
    assert signal(metrics) is expected


def offer(refill: Refill[str], *groups: tuple[str, list[float]]) -> None:
    for number, (name, metrics) in enumerate(groups):
        refill.offer(number, name, metrics)


def test_surplus_opens_the_next_step():
    """Three kept for a step of two: the third is carried over, and the next step asks for one."""
    refill = Refill[str](2, DynamicSampling(oversample=2))
    assert refill.wanted(0) == 4
    offer(refill, ("a", MIXED), ("b", SOLVED), ("c", FAILED), ("d", LOST), ("e", MIXED), ("f", MIXED))
    groups, counters = refill.take()
    assert groups == ["a", "e"]
    assert counters == RefillCounters(generated=6, kept=3, all_solved=1, all_failed=1, missing=1, surplus=1)
    assert refill.carried == ("f",)
    assert refill.wanted(0) == 2
    offer(refill, ("g", MIXED))
    assert refill.take() == (["f", "g"], RefillCounters(generated=1, kept=1))


def test_carried_groups_survive_a_restart():
    """A refill made with what another carried goes on where that one stopped."""
    refill = Refill[str](1, DynamicSampling(), carried=["f"])
    assert refill.wanted(0) == 0
    assert refill.take()[0] == ["f"]


def test_a_group_without_signal_is_replaced_while_others_run():
    """Two are needed and two run; one of them turns out to be solved throughout."""
    refill = Refill[str](2, DynamicSampling())
    assert refill.wanted(0) == 2
    assert refill.wanted(2) == 0
    refill.offer(1, "b", SOLVED)
    assert refill.wanted(1) == 1


@pytest.mark.parametrize("at_cap", [AtCap.TRAIN, AtCap.STOP])
def test_at_the_cap_a_step_trains_on_the_groups_found(at_cap):
    """Groups without a signal never fill it up: they would only dilute the mean over tokens."""
    refill = Refill[str](3, DynamicSampling(max_attempts=2, at_cap=at_cap))
    outcomes = enumerate(zip("abcdef", [MIXED, SOLVED, FAILED, FAILED, LOST, LOST], strict=True))
    for number, (name, metrics) in outcomes:
        assert refill.wanted(0) > 0
        assert refill.wanted(6 - number) == 0, "the cap counts what runs"
        refill.offer(number, name, metrics)
    assert refill.wanted(0) == 0
    groups, counters = refill.take()
    assert groups == ["a"]
    assert counters.generated == 6
    assert refill.wanted(0) == 3


def test_cap_raises_with_the_counts():
    """Where every batch must be of one size, a step that is not full is an error that says what was seen."""
    refill = Refill[str](1, DynamicSampling(max_attempts=2, at_cap=AtCap.RAISE))
    offer(refill, ("a", SOLVED), ("b", FAILED))
    with pytest.raises(UserError, match=r"0 of 1 groups with a signal among 2 \(all solved 1, all failed 1"):
        refill.take()


def test_taking_too_early_is_a_mistake():
    """A step is not handed out while attempts are left."""
    with pytest.raises(RuntimeError, match="2 more groups"):
        Refill[str](2, DynamicSampling()).take()
    with pytest.raises(ValueError, match="at least 1"):
        Refill[str](0, DynamicSampling())


@settings(deadline=None, max_examples=50)
@given(
    target=st.integers(1, 4),
    oversample=st.sampled_from([1.0, 1.5, 2.0]),
    stream=st.lists(st.sampled_from([MIXED, SOLVED, FAILED, LOST]), min_size=1, max_size=60),
    data=st.data(),
)
def test_kept_groups_are_trained_on_once_in_the_order_they_were_begun(target, oversample, stream, data):
    """Over many steps, whichever group finishes first, no kept group is lost, doubled or overtaken."""
    refill = Refill[int](target, DynamicSampling(max_attempts=3, oversample=oversample))
    begun = 0
    taken: list[int] = []
    while True:
        running: list[int] = []
        while running or refill.wanted(0):
            fresh = refill.wanted(len(running))
            running += range(begun, min(begun + fresh, len(stream)))
            begun = min(begun + fresh, len(stream))
            if not running:
                break
            first = running.pop(data.draw(st.integers(0, len(running) - 1)))
            refill.offer(first, first, stream[first])
        if refill.wanted(0):
            break
        groups, seen = refill.take()
        assert len(groups) <= target
        assert seen.generated == seen.kept + seen.all_solved + seen.all_failed + seen.missing <= 3 * target
        taken += groups
    finished = taken + list(refill.carried)
    kept = [name for name, metrics in enumerate(stream[:begun]) if metrics is MIXED]
    assert finished == kept[: len(finished)]
