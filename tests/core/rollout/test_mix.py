"""A mix keeps its quotas, plays every task once per epoch, and goes on after a restart as if nothing happened."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.config import validate_settings
from envgym.env.services import Services
from envgym.errors import RecipeError, UserError
from envgym.rollout.mix import Mix, MixEntry

WEIGHTS = st.lists(st.sampled_from([0.0, 0.001, 0.1, 1 / 3, 1.0, 2.0, 7.5, 1e6]), min_size=1, max_size=6).filter(
    any
)
QUICK = settings(deadline=None, max_examples=40)


def mix_of(weights: Sequence[float], sizes: Sequence[int] | None = None, seed: int = 0) -> Mix:
    entries = [MixEntry(env="toys:Adder", name=f"e{i}", weight=w) for i, w in enumerate(weights)]
    counts = sizes or [10] * len(weights)
    return Mix(entries, {f"e{i}": n for i, n in enumerate(counts)}, seed)


@QUICK
@given(WEIGHTS, st.lists(st.integers(0, 40), min_size=1, max_size=30))
def test_quotas_are_exact_over_many_calls(weights: list[float], totals: list[int]) -> None:
    """Every call hands out its total; over all calls nobody is ever a draw ahead, nor far behind."""
    mix = mix_of(weights)
    handed: Counter[str] = Counter()
    for i, total in enumerate(totals, 1):
        counts = mix.quotas(total)
        assert sum(counts.values()) == total
        assert min(counts.values()) >= 0
        handed.update(counts)
        for j, weight in enumerate(weights):
            fair = sum(totals[:i]) * weight / sum(weights)
            assert handed[f"e{j}"] < fair + 1 + 1e-6
            assert handed[f"e{j}"] > fair - len(weights)
            assert weight or not handed[f"e{j}"]


def test_quotas_by_hand() -> None:
    mix = mix_of([0.5, 0.25, 0.25])
    assert mix.quotas(4) == {"e0": 2, "e1": 1, "e2": 1}
    rounds = [tuple(mix_of([2, 1]).quotas(n).values()) for n in (1, 2, 3)]
    assert rounds == [(1, 0), (1, 1), (2, 1)]
    thirds = mix_of([1, 1, 1])
    assert Counter(k for _ in range(3) for k, n in thirds.quotas(1).items() if n) == {"e0": 1, "e1": 1, "e2": 1}


@QUICK
@given(st.integers(1, 120), st.integers())
def test_an_epoch_plays_every_task_once(size: int, seed: int) -> None:
    mix = mix_of([1.0], [size], seed)
    for _ in range(2):
        assert sorted(mix.draw("e0") for _ in range(size)) == list(range(size))


def test_draws_of_a_huge_epoch_are_in_range_and_differ() -> None:
    """An environment of 10**12 tasks costs what is drawn of it."""
    mix = mix_of([1.0], [10**12])
    drawn = [mix.draw("e0") for _ in range(1000)]
    assert len(set(drawn)) == 1000
    assert 0 <= min(drawn) < 10**10 < 99 * 10**10 < max(drawn) < 10**12


def test_epochs_and_seeds_differ_in_their_order() -> None:
    def epochs(seed: int) -> list[list[int]]:
        mix = mix_of([1.0], [50], seed)
        return [[mix.draw("e0") for _ in range(50)] for _ in range(2)]

    first, second = epochs(0)
    assert first != second
    assert first != sorted(first)
    assert epochs(0) == [first, second] != epochs(1)


def test_every_order_is_equally_likely() -> None:
    """Over seeds, each of the 24 orders of four tasks: chi-square at 1 in 10,000, 23 degrees of freedom."""
    mixes = [mix_of([1.0], [4], seed) for seed in range(2400)]
    counts = Counter(tuple(mix.draw("e0") for _ in range(4)) for mix in mixes)
    assert sum((counts[order] - 100) ** 2 / 100 for order in itertools.permutations(range(4))) < 57.2


@QUICK
@given(WEIGHTS, st.lists(st.integers(0, 9), max_size=6), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_a_restored_mix_goes_on_identically(weights: list[float], before: list[int], after: list[int]) -> None:
    def play(mix: Mix, totals: list[int]) -> list[Any]:
        made = [mix.quotas(n) for n in totals]
        return [(c, [mix.draw(label) for label, n in c.items() for _ in range(n)]) for c in made]

    whole, resumed = mix_of(weights), mix_of(weights)
    play(whole, before)
    resumed.restore(json.loads(json.dumps(whole.state())))
    assert play(resumed, after) == play(whole, after)


@pytest.mark.parametrize(
    ("weights", "sizes", "names", "words"),
    [
        ([1.0, 1.0], [1, 1], ["a", "a"], "names must differ"),
        ([0.0, 0.0], [1, 1], ["a", "b"], "at least one environment needs a positive weight"),
        ([1.0, 1.0], [1, 0], ["a", "b"], "b: no training task"),
    ],
)
def test_a_mix_that_cannot_be_drawn_is_refused(
    weights: list[float], sizes: list[int], names: list[str], words: str
) -> None:
    entries = [MixEntry(env="toys:Adder", name=n, weight=w) for n, w in zip(names, weights, strict=True)]
    with pytest.raises(RecipeError, match=words):
        Mix(entries, dict(zip(names, sizes, strict=True)), 0)


def test_an_entry_is_named_by_its_environment() -> None:
    names = [MixEntry(env=env).label for env in ("math_problems-v1", "envgym/a.b-v2", "toys:Adder")]
    assert names == ["math_problems", "a.b", "Adder"]
    assert MixEntry(env="math_problems-v1", name="hard").label == "hard"


@pytest.mark.parametrize("setting", ["split", "services"])
def test_what_the_run_chooses_is_no_setting(setting: str) -> None:
    with pytest.raises(RecipeError, match=f"settings: {setting} is not a setting"):
        validate_settings(MixEntry, {"env": "toys:Adder", "settings": {setting: 1}}, "recipe")
    with pytest.raises(pydantic.ValidationError):
        MixEntry(env="e", weight=-1)


def test_an_entry_makes_its_environment_with_its_settings() -> None:
    services = Services()
    made = MixEntry(env="toys:Adder", settings={"numbers": 5}).make(services)
    assert made.config.numbers == 5
    assert made.services.shared is services
    with pytest.raises(UserError, match="Adder: unknown key 'numbrs'; did you mean 'numbers'"):
        MixEntry(env="toys:Adder", settings={"numbrs": 5}).make(services)
