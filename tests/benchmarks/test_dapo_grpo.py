"""What two objectives took to the same held-out reward is read off their curves, and never made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.dapo_grpo import Curve, compare


def curve(*greedy: float) -> Curve:
    """Measured every two steps of 100 tokens."""
    steps = np.arange(len(greedy)) * 2.0
    return Curve(steps=steps, tokens=steps * 100, greedy=np.array(greedy), sampled=np.array(greedy))


@pytest.mark.parametrize(
    ("target", "until", "tokens"),
    [
        (0.2, 800, 0.0),
        (0.5, 800, 300.0),
        (0.6, 800, 400.0),
        (0.6, 399, None),
        (0.7, 800, None),
    ],
)
def test_the_first_crossing_is_interpolated_and_one_after_the_budget_is_none(
    target: float, until: float, tokens: float | None
) -> None:
    """The reward falls again after 400 tokens, which takes nothing back."""
    found = curve(0.2, 0.4, 0.6, 0.3, 0.65)
    assert found.reached(target, found.tokens, until) == pytest.approx(tokens)
    assert found.reached(target, found.steps, until) == pytest.approx(tokens and tokens / 100)


def test_differences_are_paired_and_a_seed_without_a_figure_is_counted() -> None:
    """Student's t of three pairs by hand: the mean of 1, 2, 3 is within 4.303 / sqrt(3) of 2."""
    dapo: list[float | None] = [1.0, 5.0, 9.0, 4.0]
    grpo: list[float | None] = [2.0, 7.0, 12.0, None]
    runs: dict[str, Any] = {"dapo": [{"x": v} for v in dapo], "grpo": [{"x": v} for v in grpo]}
    found = compare(runs)["x"]
    difference = found["grpo - dapo"]
    assert (difference["mean"], difference["seeds"], difference["without"]) == (2.0, 3, 1)
    assert difference["high"] - 2 == 2 - difference["low"] == pytest.approx(4.303 / 3**0.5)
    assert (found["dapo"]["mean"], found["grpo"]["mean"]) == (4.75, 7.0)
    never = compare({"dapo": [{"x": None}], "grpo": [{"x": 1.0}]})["x"]
    assert (never["dapo"]["mean"], never["grpo"]["mean"], never["grpo - dapo"]["mean"]) == (None, 1.0, None)
