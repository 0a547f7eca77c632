"""Splits share no problem."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.errors import DataError, UnknownNameError
from envgym.records import Message, Split, Task, problem_key
from envgym.seeding import derive_rng, derive_seed
from envgym.tasks.procedural import ProceduralTasks, check_split, split_of, stable_id


def generate(rng: random.Random, split: Split) -> Task:
    a, b = rng.randrange(40), rng.randrange(40)
    return Task(id=f"{a}+{b}", split=split, messages=(Message(role="user", content=f"{a} + {b}?"),))


@settings(deadline=None, max_examples=6)
@given(seeds=st.tuples(st.integers(), st.integers()))
def test_splits_share_no_problem_whatever_their_seeds(seeds: tuple[int, int]) -> None:
    train, held_out = (
        ProceduralTasks(generate, split, 60, seed)
        for split, seed in zip(("train", "held_out"), seeds, strict=True)
    )
    assert not {problem_key(t) for t in train} & {problem_key(t) for t in held_out}
    assert {t.split for t in train} == {"train"} == {split_of(t) for t in train}


def test_one_problem_in_five_is_held_out() -> None:
    every_one = [generate(random.Random(i), "train") for i in range(2000)]
    share = sum(split_of(t) == "held_out" for t in every_one) / len(every_one)
    assert 0.16 < share < 0.24


def test_a_procedural_list_is_a_sequence() -> None:
    tasks = ProceduralTasks(generate, "train", 10)
    assert len(tasks) == len(list(tasks)) == 10
    assert tasks[-1] == tasks[9]
    assert tasks[2:4] == [tasks[2], tasks[3]]
    assert list(ProceduralTasks(generate, "train", 10)) == list(tasks)
    assert list(ProceduralTasks(generate, "train", 10, seed=1)) != list(tasks)
    for outside in (10, -11):
        with pytest.raises(IndexError):
            tasks[outside]


def test_a_generator_with_too_few_problems_is_an_error_and_not_a_hang() -> None:
    def one(_: random.Random, split: Split) -> Task:
        return Task(id="only", split=split, messages=(Message(role="user", content="?"),))

    other: Split = "train" if split_of(one(random.Random(), "train")) == "held_out" else "held_out"
    with pytest.raises(DataError, match="too few problems"):
        ProceduralTasks(one, other, 5)[0]


def test_an_unknown_split_is_told_the_known_ones() -> None:
    assert check_split("train") == "train"
    with pytest.raises(UnknownNameError, match=r"did you mean 'held_out'.*train"):
        check_split("heldout")


def test_seeds_and_ids_depend_on_every_name_and_on_nothing_else() -> None:
    """Constants of an earlier process: a run can be repeated."""
    assert derive_seed("episode", 0, "math") == 1896896854951812470
    assert stable_id("a", "b") != stable_id("ab") != stable_id("a\x00", "b")
    assert len({derive_seed(*names) for names in (("a", 1), ("a", "1"), ("a1",), (1, "a"))}) == 4
    assert derive_rng("x").random() == derive_rng("x").random()
