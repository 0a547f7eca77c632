"""A generator that is made late draws what Gymnasium's draws."""

from __future__ import annotations

import copy

import gymnasium.utils.seeding
import pytest
from toys import Letter


def test_draws_are_those_of_gymnasium() -> None:
    env = Letter()
    env.reset(seed=5, options={"task": env.task_list("train")[0]})
    assert env.np_random_seed == 5
    expected, _ = gymnasium.utils.seeding.np_random(5)
    assert env.np_random.integers(2**63) == expected.integers(2**63)
    twin = copy.deepcopy(env)
    assert env.np_random.integers(2**63) == twin.np_random.integers(2**63) == expected.integers(2**63)


def test_a_generator_that_is_set_stays_until_the_next_seed() -> None:
    env = Letter()
    env.reset(seed=5)
    env.np_random = made = gymnasium.utils.seeding.np_random(6)[0]
    env.reset()
    assert env.np_random is made
    env.reset(seed=7)
    assert env.np_random is not made


@pytest.mark.parametrize("seed", [-1, 0.5])
def test_a_seed_that_is_none_is_refused_as_ever(seed: object) -> None:
    with pytest.raises(gymnasium.error.Error):
        Letter().reset(seed=seed)  # type: ignore[arg-type]
