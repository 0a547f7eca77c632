"""Every registered objective keeps the contract, with its default settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from envgym_trainers.objectives import Objective, objectives
from envgym_trainers.testing import ObjectiveContract


class TestEveryObjective(ObjectiveContract):
    @pytest.fixture(params=sorted(objectives.plugins().keys() - {"ppo"}))
    def made(self, request: pytest.FixtureRequest) -> Objective:
        return objectives.make(request.param)


class TestPPO(ObjectiveContract):
    """Its baseline is the critic's: a group of equal members has something to teach."""

    objective = "ppo"
    needs_a_difference = False


class TestGRPOWithAReference(ObjectiveContract):
    objective = "grpo"
    settings: ClassVar[Mapping[str, Any]] = {"beta": 0.1, "unbiased_kl": True, "importance_cap": 2.0}
