"""What every registered environment must do, with its default settings.

An environment that is installed is tested: nothing here names one. The checks are those of ``envgym check``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from envgym.check import CHECKS, Check, Subject
from envgym.env.registration import list_envs, make


@pytest.fixture(params=list_envs(), scope="module")
def env_id(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def subject(env_id: str) -> Iterator[Subject]:
    made = make(env_id)
    yield Subject(make=functools.partial(make, env_id), env=made, episodes=3)
    made.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_the_quality_gate_is_passed(subject: Subject, check: Check) -> None:
    assert check.faults(subject) == []


def test_gymnasium_makes_it_and_its_checker_passes(env_id: str) -> None:
    made = gymnasium.make(f"envgym/{env_id}")
    check_env(made.unwrapped, skip_render_check=True)
    made.close()
