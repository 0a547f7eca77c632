"""What a step takes and what may be begun, by hand: the bound of staleness, and who may overtake whom."""

from __future__ import annotations

import pytest

from envgym_trainers.stages.window import Place, Window

_DRAW = (0, 0)


def _window(staleness: int, quotas: list[int], step: int = 0) -> Window[str]:
    window: Window[str] = Window(staleness, step)
    window.plan(quotas)
    return window


def _begin(window: Window[str], version: int, count: int) -> list[Place[str]]:
    return [window.begin(version, _DRAW) for _ in range(count)]


def _names(places: list[Place[str]] | None) -> list[str | None] | None:
    return None if places is None else [place.group for place in places]


@pytest.mark.parametrize(("staleness", "begun"), [(0, 2), (1, 5), (2, 6)])
def test_as_much_is_begun_as_the_steps_within_the_bound_need(staleness: int, begun: int) -> None:
    window = _window(staleness, [2, 3, 1])
    assert window.wanted(staleness) == begun
    _begin(window, 0, begun)
    assert window.wanted(staleness) == 0


def test_a_younger_group_overtakes_while_the_older_one_can_wait() -> None:
    """N = 1, one group a step. The first may wait for one step, and no longer."""
    window = _window(1, [1, 1])
    first, second = _begin(window, 0, 2)
    assert window.choose() is None
    second.group = "second"
    chosen = window.choose()
    assert _names(chosen) == ["second"]
    assert window.take(chosen or []) == ["second"]
    window.plan([1])
    (third,) = _begin(window, 1, 1)
    third.group = "third"
    assert window.choose() is None, "at step 1 the first is one version old: at step 2 it would be too old"
    first.group = "first"
    assert _names(window.choose()) == ["first"]


def test_two_that_are_late_are_waited_for_before_both_would_be_too_old() -> None:
    """N = 2, one group a step: once the last of three is taken, two are left for steps 1 and 2."""
    window = _window(2, [1, 1, 1])
    first, _, third = _begin(window, 0, 3)
    third.group = "third"
    window.take(window.choose() or [])
    window.plan([1])
    (fourth,) = _begin(window, 1, 1)
    fourth.group = "fourth"
    assert window.choose() is None, "one of the two would be left for step 3"
    first.group = "first"
    assert _names(window.choose()) == ["first"]


def test_a_step_is_content_with_less_only_if_what_is_left_can_wait() -> None:
    window = _window(0, [2])
    first, second = _begin(window, 0, 2)
    first.group = "first"
    assert window.choose() is None
    assert window.choose(fewer=True) is None, "the second would be a version too old at the next step"
    window.discard(second)
    assert _names(window.choose(fewer=True)) == ["first"]


def test_a_step_that_needs_none_takes_none() -> None:
    window = _window(1, [0, 1])
    _begin(window, 0, 1)
    assert window.take(window.choose() or []) == []
    assert window.need == 1
