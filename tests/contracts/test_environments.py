"""Every registered environment keeps the contract, by default but for fewer tasks. Nothing here names one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from envgym import list_envs
from envgym.testing import EnvironmentContract


class TestEveryEnvironment(EnvironmentContract):
    settings: ClassVar[Mapping[str, Any]] = {"size": 1000}  # benchmarks/split_overlap.py has the whole of them

    @pytest.fixture(params=list_envs(), scope="class")
    @classmethod
    def env_name(cls, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name


@pytest.mark.parametrize("env_id", list_envs())
def test_gymnasium_makes_it_and_its_checker_passes(env_id: str) -> None:
    made = gymnasium.make(f"envgym/{env_id}")
    assert made.spec is not None
    assert made.spec.id == f"envgym/{env_id}"
    check_env(made.unwrapped, skip_render_check=True)
    made.close()
