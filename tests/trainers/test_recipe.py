"""Recipes: where programs run may be a name or a table."""

from __future__ import annotations

import pytest

from envgym.config import validate_settings
from envgym.env.services import Services
from envgym.errors import RecipeError
from envgym_trainers.recipe import ReinforcementRecipe, SandboxConfig

MIX = {"mix": [{"env": "math_problems-v1"}]}


def test_a_sandbox_is_a_name_or_a_table() -> None:
    named = validate_settings(ReinforcementRecipe, {**MIX, "sandbox": "docker"}, "r")
    assert named.sandbox == SandboxConfig(name="docker")
    table = {"name": "unsafe_local", "settings": {"runtime": "runsc"}}
    chosen = validate_settings(ReinforcementRecipe, {**MIX, "sandbox": table}, "r").sandbox
    with pytest.raises(RecipeError, match="sandbox 'unsafe_local': unknown key 'runtime'"):
        Services(chosen.name, chosen.settings).backend()
    with pytest.raises(RecipeError, match=r"unknown key 'sandbox\.nane'; did you mean 'name'"):
        validate_settings(ReinforcementRecipe, {**MIX, "sandbox": {"nane": "docker"}}, "r")


def test_auto_takes_no_settings() -> None:
    """Whose settings they are would depend on the machine."""
    with pytest.raises(RecipeError, match="'auto' has no settings"):
        Services("auto", {"capacity": 2}).backend()
