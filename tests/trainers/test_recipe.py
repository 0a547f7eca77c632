"""Recipes: every shipped one loads, where programs run may be a name or a table, auxiliary models are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from envgym.config import read_recipe, validate_settings
from envgym.env.services import Services
from envgym.errors import RecipeError
from envgym.runs.stage import stages
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


RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_makes_its_stage(path: Path) -> None:
    """Keys, settings and the objective's own are checked; line 1 is the command."""
    assert path.read_text().startswith(f"# envgym train recipes/{path.name}")
    values = read_recipe(path)
    stages.make(values.pop("stage", "rl"), values)


def test_auxiliary_models_are_settings() -> None:
    """Unknown names are refused."""
    auxiliary = {"critic": {"learning_rate": 1e-3}, "reference": {"path": "/models/base"}}
    recipe = validate_settings(ReinforcementRecipe, {**MIX, "auxiliary": auxiliary}, "r")
    assert recipe.auxiliary.critic.learning_rate == 1e-3
    assert recipe.auxiliary.reference.path == "/models/base"
    with pytest.raises(RecipeError, match=r"unknown key 'auxiliary\.criitc'; did you mean 'critic'"):
        validate_settings(ReinforcementRecipe, {**MIX, "auxiliary": {"criitc": {}}}, "r")
