"""``envgym recipe``: what is shipped is described whole, and the starter is a recipe."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from envgym.cli import app
from envgym.cli.recipe import PARTS, part_tables, stage_tables
from envgym.config import validate_settings
from envgym.errors import UserError
from envgym.runs.recipe_keys import Table
from envgym.runs.stage import stages

PLUGINS = [(part, name) for part, kind in PARTS.items() for name in kind.load_registry().plugins()]
STARTERS = (
    ("rl",),
    ("sft",),
    ("rl", "--objective", "dapo", "--env", "code_sandbox", "--sandbox", "docker"),
    ("rl", "--objective", "grpo"),
    ("sft", "--engine", "in_process"),
)

STAGE = '''
from envgym.config import Section
from envgym.runs.stage import Stage


class Choice(Section, extra="allow"):
    """Names an objective."""

    name: str = "dapo"
    """Its name."""


class Named(Stage):
    """A stage whose objective is a table of its own."""

    class Config(Stage.Config):
        """The recipe."""

        objective: Choice = Choice()

    async def run(self, folder, reporter):
        """Do nothing."""
'''


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["recipe", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.mark.parametrize("stage", list(stages.plugins()))
def test_every_key_of_a_stage_is_described(stage: str) -> None:
    assert not _undescribed(stage_tables(stage))


@pytest.mark.parametrize(("part", "name"), PLUGINS)
def test_every_setting_of_a_plugin_is_described(part: str, name: str) -> None:
    assert not _undescribed(part_tables(part, name, part))


@pytest.mark.parametrize("arguments", STARTERS, ids=" ".join)
def test_the_starter_is_a_recipe_as_it_stands(arguments: tuple[str, ...]) -> None:
    values = tomllib.loads(run(*arguments, "--toml"))
    assert values["mix"][0]["env"] == (arguments[4] if "--env" in arguments else "math_problems-v1")
    _config(values)


@pytest.mark.parametrize("arguments", STARTERS, ids=" ".join)
def test_what_the_starter_comments_out_are_the_defaults(arguments: tuple[str, ...]) -> None:
    """Uncommenting every key changes nothing; a table that is optional stays commented out."""
    text = re.sub(r"(?ms)^# \[.*?(?=^$)", "", run(*arguments, "--toml"))
    spelled_out = tomllib.loads(re.sub(r"(?m)^# (\w+ = )", r"\1", text))
    as_it_stands = tomllib.loads(text)
    assert len(spelled_out) > len(as_it_stands)
    assert _resolved(spelled_out) == _resolved(as_it_stands)


def test_a_plugin_s_settings_stand_where_the_recipe_takes_them() -> None:
    tables = {t["path"]: t for t in json.loads(run("--objective", "grpo", "--env", "search_qa", "--json"))}
    assert {"name", "beta"} <= {key["name"] for key in tables["objective"]["keys"]}
    assert "hops" in {key["name"] for key in tables["mix.settings"]["keys"]}
    assert "settings" not in {key["name"] for key in tables["mix"]["keys"]}
    assert "objective" not in {key["name"] for key in tables[""]["keys"]}


def test_an_engine_s_settings_stand_beside_its_name() -> None:
    tables = {t["path"]: t for t in json.loads(run("--engine", "in_process", "--json"))}
    assert {"name", "memory"} <= {key["name"] for key in tables["engine"]["keys"]}


def test_settings_stand_beside_the_name_in_a_table_that_has_no_place_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "named_stage.py").write_text(STAGE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    tables = json.loads(run("named_stage:Named", "--objective", "grpo", "--json"))
    (table,) = (t for t in tables if t["path"] == "objective")
    assert [key["name"] for key in table["keys"]][:2] == ["name", "importance_cap"]
    values = tomllib.loads(run("named_stage:Named", "--objective", "grpo", "--toml"))
    assert values["objective"] == {"name": "grpo"}


def test_a_stage_without_an_objective_says_so() -> None:
    with pytest.raises(UserError, match="stage 'sft' has no objective"):
        run("sft", "--objective", "dapo")
    with pytest.raises(UserError, match="did you mean 'dapo'"):
        run("rl", "--objective", "dappo")


def test_the_help_teaches_the_command() -> None:
    assert "--toml" in run("--help")
    assert "envgym recipe rl --objective dapo" in " ".join(run("--help").split())


def _undescribed(tables: list[Table]) -> list[str]:
    """Tables without a text, and keys without one or, where a recipe needs them, without an example."""
    keys = [(table.path, key) for table in tables for key in table.keys]
    lacking = [f"{path}.{k.name}" for path, k in keys if not k.description or (k.required and k.default is None)]
    return lacking + [table.path for table in tables if not table.about]


def _config(values: dict[str, Any]) -> Any:
    return validate_settings(stages.load(values["stage"]).Config, values, "starter")


def _resolved(values: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe with the settings of its plugins, defaults filled in."""
    config: dict[str, Any] = _config(values).model_dump(mode="json")
    config["engine"] = _settings("engine", config["engine"])
    if "objective" in config:
        config["objective"] = _settings("objective", config["objective"])
    for part, table in (("mix", config["mix"][0]), ("sandbox", config["sandbox"])):
        name = table["env" if part == "mix" else "name"]
        if name != "auto":
            table["settings"] = _settings(part, {"name": name, **table["settings"]})
    return config


def _settings(part: str, table: dict[str, Any]) -> list[Any]:
    """Return a plugin's name and all of its settings."""
    settings = dict(table)
    name = settings.pop("name")
    model = PARTS[part].load_registry().load(name).Config
    return [name, validate_settings(model, settings, part).model_dump(mode="json")]
