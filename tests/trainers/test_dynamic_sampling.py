"""Dynamic sampling: which groups are kept, what is carried over, what happens at the cap."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.errors import UserError
from envgym_trainers.dynamic_sampling import AtCap, DynamicSampling, Refill, RefillCounters, Signal, signal

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


def test_surplus_opens_the_next_step():
    """Three kept for a step of two: the third is carried over, and the next step asks for one."""
    refill = Refill[str](2, DynamicSampling())
    assert refill.wanted == 2
    for name, metrics in [
        ("a", MIXED),
        ("b", SOLVED),
        ("c", FAILED),
        ("d", LOST),
        ("e", MIXED),
        ("f", MIXED),
    ]:
        refill.offer(name, metrics)
    groups, counters = refill.take()
    assert groups == ["a", "e"]
    assert counters == RefillCounters(generated=6, kept=3, all_solved=1, all_failed=1, missing=1, surplus=1)
    assert refill.wanted == 1
    assert refill.carried == ("f",)
    refill.offer("g", MIXED)
    assert refill.take() == (["f", "g"], RefillCounters(generated=1, kept=1))


def test_carried_groups_survive_a_restart():
    """A refill made with what another carried goes on where that one stopped."""
    refill = Refill[str](1, DynamicSampling(), carried=["f"])
    assert refill.wanted == 0
    assert refill.take()[0] == ["f"]


@pytest.mark.parametrize(("at_cap", "expected"), [(AtCap.TRAIN, ["a"]), (AtCap.PAD, ["a", "b", "c"])])
def test_cap_train_and_pad(at_cap, expected):
    """At the cap the step trains on what there is, or is filled up with groups that have no signal."""
    refill = Refill[str](3, DynamicSampling(max_attempts=2, at_cap=at_cap))
    for name, metrics in zip("abcdef", [MIXED, SOLVED, FAILED, FAILED, LOST, LOST], strict=True):
        assert refill.wanted > 0
        refill.offer(name, metrics)
    assert refill.wanted == 0
    groups, counters = refill.take()
    assert groups == expected
    assert counters.generated == 6
    assert refill.wanted == 3


def test_padding_comes_from_the_same_step():
    """A group without signal is never kept for a later step."""
    refill = Refill[str](1, DynamicSampling(max_attempts=1, at_cap=AtCap.PAD))
    refill.offer("a", SOLVED)
    assert refill.take()[0] == ["a"]
    refill.offer("b", LOST)
    assert refill.take()[0] == []


def test_cap_raises_with_the_counts():
    """By default a step that cannot be filled ends the run and says what was seen."""
    refill = Refill[str](1, DynamicSampling(max_attempts=2))
    refill.offer("a", SOLVED)
    refill.offer("b", FAILED)
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
    at_cap=st.sampled_from([AtCap.TRAIN, AtCap.PAD]),
    stream=st.lists(st.sampled_from([MIXED, SOLVED, FAILED, LOST]), min_size=1, max_size=60),
    extra=st.integers(0, 3),
)
def test_every_kept_group_is_trained_on_once_in_order(target, at_cap, stream, extra):
    """Over many steps, with more offered than wanted, no kept group is lost, doubled or overtaken."""
    refill = Refill[int](target, DynamicSampling(max_attempts=3, at_cap=at_cap))
    incoming = iter(enumerate(stream))
    taken: list[int] = []
    generated = 0
    while True:
        while refill.wanted:
            offered = [pair for _, pair in zip(range(refill.wanted + extra), incoming, strict=False)]
            if not offered:
                break
            for name, metrics in offered:
                refill.offer(name, metrics)
        if refill.wanted:
            break
        groups, seen = refill.take()
        assert len(groups) <= target
        assert seen.generated == seen.kept + seen.all_solved + seen.all_failed + seen.missing
        generated += seen.generated
        taken += [name for name in groups if stream[name] is MIXED]
    kept = [name for name, metrics in enumerate(stream) if metrics is MIXED]
    assert taken + list(refill.carried) == kept
    assert generated <= len(stream)
