"""A gain is explained as far as a rival has it, too; the rival is always the strongest there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envgym.evaluate import EnvScores
from envgym.evaluate.verdict import Contender, advantage, judge, level

_N = 40


def scores(rewards: Mapping[str, float], span: tuple[float, float] = (0.0, 1.0)) -> dict[str, EnvScores]:
    """Scores of one environment."""
    return {"e": EnvScores(rewards=dict(rewards), span=span)}


def rewards(solved: int, n: int = _N) -> dict[str, EnvScores]:
    """One environment of which the first ``solved`` tasks are solved."""
    return scores({f"t{i:03d}": float(i < solved) for i in range(n)})


def run(before: int, after: int) -> Contender:
    return Contender(before={"greedy": rewards(before)}, after={"greedy": rewards(after)})


def verdict(trained: Contender, start: int = 0, **controls: Contender) -> dict[str, Any]:
    return judge(trained, controls, rewards(start))


@pytest.mark.parametrize(
    ("control", "start", "explained", "words"),
    [
        (4, 4, "no", "coin gains 0% of it"),
        (9, 4, "no", "coin gains 17% of it"),
        (14, 4, "in part", "coin gains 33% of it"),
        (24, 4, "yes", "coin gains 67% of it"),
        (34, 4, "yes", "not above the one trained on coin"),
        (4, 34, "yes", "not above the start model at its best temperature"),
        (0, 4, "no", "coin gains 0% of it"),
    ],
)
def test_the_answer_by_hand(control: int, start: int, explained: str, words: str) -> None:
    """The trained policy goes from 4 to 34 of 40: the gain is 30 tasks."""
    found = verdict(run(4, 34), start, coin=run(4, control))
    assert found["explained"] == explained
    assert words in found["because"][0]
    part = found["decodings"]["greedy"]
    assert part["gain"]["mean"] == pytest.approx(30 / _N)
    assert part["share"] == pytest.approx(max(0, control - 4) / 30)
    assert part["over_control"]["mean"] == pytest.approx((34 - control) / _N)
    assert part["over_start"]["mean"] == pytest.approx((34 - start) / _N)


def test_the_best_control_is_the_rival() -> None:
    part = verdict(run(4, 34), coin=run(4, 4), entropy=run(4, 20), length=run(4, 0))["decodings"]["greedy"]
    assert (part["best_control"], part["control_gain"]["mean"]) == ("entropy", pytest.approx(16 / _N))


@pytest.mark.parametrize("after", [4, 3])
def test_without_a_gain_there_is_nothing_to_explain(after: int) -> None:
    found = verdict(run(4, after), coin=run(4, 4))
    assert found["explained"] == "there is no gain to explain"
    assert "not above 0" in found["because"][0]


def test_the_worst_way_of_decoding_decides() -> None:
    """A gain that only the sampled policy shows, and entropy as well, is explained."""
    trained = Contender(
        before={"greedy": rewards(30), "sampled": rewards(4)},
        after={"greedy": rewards(30), "sampled": rewards(30)},
    )
    found = judge(trained, {"entropy": trained}, rewards(30))
    assert found["explained"] == "yes"
    assert [part["explained"] for part in found["decodings"].values()] == ["there is no gain to explain", "yes"]
    assert [reason.partition(":")[0] for reason in found["because"]] == ["greedy", "sampled"]


def test_one_explained_gain_is_enough() -> None:
    trained = Contender(
        before={"greedy": rewards(4), "sampled": rewards(4)}, after={"greedy": rewards(34), "sampled": rewards(34)}
    )
    coin = Contender(before=trained.before, after={"greedy": rewards(4), "sampled": rewards(33)})
    found = judge(trained, {"coin": coin}, rewards(4))
    assert [part["explained"] for part in found["decodings"].values()] == ["no", "yes"]
    assert found["explained"] == "yes"


def test_an_environments_range_widens_its_intervals() -> None:
    """Twenty problems that all scored 1 say less where -1 is possible: the reward, and the gain as well."""
    full = {f"t{i:03d}": 1.0 for i in range(20)}
    narrow, wide = scores(full), scores(full, (-1.0, 1.0))
    for found in (level(wide)["overall"], level(wide)["environments"]["e"]):
        assert found["low"] == pytest.approx(2 * level(narrow)["overall"]["low"] - 1)
    assert advantage(wide, wide).low == pytest.approx(2 * advantage(narrow, narrow).low)


def test_tasks_that_one_side_lost_are_left_out() -> None:
    old = scores({"a": 0.0, "b": 1.0})
    assert advantage(old, scores({"b": 0.5, "c": 1.0})).mean == -0.5


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30))
def test_the_advantage_of_one_is_the_others_disadvantage(pairs: list[tuple[float, float]]) -> None:
    old = scores({str(i): a for i, (a, _) in enumerate(pairs)})
    new = scores({str(i): b for i, (_, b) in enumerate(pairs)})
    assert advantage(old, new).mean == pytest.approx(-advantage(new, old).mean)
