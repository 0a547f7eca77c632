"""The objective that comes from outside: hand values, and a recipe that names it by its path."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from envgym.cli import app

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAN = math.nan


@pytest.fixture
def best_of_group(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(EXAMPLES)
    yield importlib.import_module("custom_objective").BestOfGroup
    sys.modules.pop("custom_objective", None)


@pytest.mark.parametrize(
    ("keep", "rewards", "expected"),
    [
        (1, [0.0, 1.0, 0.5, 1.0], [0, 1, 0, 0]),
        (2, [0.0, 1.0, 0.5, 1.0], [0, 1, 0, 1]),
        (2, [0.0, 1.0, 0.0, 0.0], [0, 1, 0, 0]),
        (3, [NAN, 1.0, 0.0, NAN], [0, 1, 0, 0]),
        (2, [1.0, 1.0, 1.0, NAN], [0, 0, 0, 0]),
        (2, [NAN, NAN], [0, 0]),
    ],
)
def test_only_the_best_above_the_mean_are_imitated(
    best_of_group: Any, keep: int, rewards: list[float], expected: list[int]
) -> None:
    advantages = best_of_group(keep=keep).advantages(torch.tensor(rewards, dtype=torch.float64))
    assert advantages.tolist() == expected


def test_its_recipe_trains(best_of_group: Any, tmp_path: Path) -> None:
    small = ("steps=1", "groups=2", "group_size=2", "evaluate.tasks=2", "sampling.max_tokens=16")
    words = [word for item in small for word in ("--set", item)]
    recipe = str(EXAMPLES / "custom_objective.toml")
    result = CliRunner().invoke(app, ["train", recipe, "--out", str(tmp_path / "run"), *words])
    assert result.exception is None, result.stderr
    assert (tmp_path / "run" / "summary.json").is_file()
