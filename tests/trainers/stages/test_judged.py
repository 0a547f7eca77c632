"""A recipe that names a judge trains on an environment that asks for one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from envgym.cli import main

_RECIPE = """
steps = 1
groups = 1
group_size = 2
{judge}
[model]
path = "builtin:tiny"
[[mix]]
env = "search_qa"
settings = {{ grader = "judge", documents = 60 }}
[sampling]
max_tokens = 24
[evaluate]
tasks = 12
"""


def _train(folder: Path, monkeypatch: pytest.MonkeyPatch, judge: str) -> int:
    recipe = folder / "judged.toml"
    recipe.write_text(_RECIPE.format(judge=judge))
    monkeypatch.setattr(sys, "argv", ["envgym", "train", str(recipe), "--out", str(folder / "run")])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_recipe_names_the_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judge_server: Any) -> None:
    """It says yes to whatever it is asked, so what it was asked about counts as right."""
    assert _train(tmp_path, monkeypatch, f'judge = "{judge_server.url}#grader"') == 0
    assert judge_server.seen
    assert {request["model"] for request in judge_server.seen} == {"grader"}


def test_a_recipe_says_how_the_judge_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judge_server: Any
) -> None:
    table = f'judge = {{ name = "{judge_server.url}#grader", settings = {{ max_tokens = 128 }} }}'
    assert _train(tmp_path, monkeypatch, table) == 0
    assert {request["max_tokens"] for request in judge_server.seen} == {128}


def test_without_one_the_recipe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(tmp_path, monkeypatch, "") == 2
    assert "judge = 'URL#MODEL' in the recipe" in capsys.readouterr().err
