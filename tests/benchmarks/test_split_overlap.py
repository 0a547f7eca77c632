"""Problems asked again in other words have the key that they had, and no key is in both splits."""

from __future__ import annotations

import pytest

from benchmarks.split_overlap import VARIANTS, measure


@pytest.mark.parametrize("name", VARIANTS)
def test_a_hundred_tasks_of_each_split(name: str) -> None:
    found = measure(name, 100)
    assert (found["shared_problems"], found["variants_with_another_key"]) == (0, 0)
    assert found["train_problems"] > 40
    assert found["held_out_problems"] > 20
