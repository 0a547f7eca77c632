"""``novice`` in a supervised recipe: what share of beginners is imitated is what the model becomes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w


@pytest.mark.parametrize(("novice", "greedy"), [(0.0, 1.0), (0.25, 1.0), (0.75, 0.0), (1.0, 0.0)])
def test_the_share_of_beginners_is_learnt(
    cli: Callable[..., int], model_folder: Path, tmp_path: Path, novice: float, greedy: float
) -> None:
    """Sampled, the model errs as often as its demonstrators did; greedily, it does as most of them."""
    recipe = {
        "stage": "sft",
        "mix": [{"env": "toys:Letter", "name": "toy"}],
        "model": {"path": str(model_folder), "context": 32},
        "examples": 256,
        "epochs": 4,
        "batch_size": 32,
        "novice": novice,
        "sampling": {"max_tokens": 1},
        "optimizer": {"learning_rate": 1e-2},
        "evaluate": {"tasks": 50, "samples": 8},
        "threads": 1,
    }
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe))
    assert cli("train", path, "--out", tmp_path / "run") == 0
    overall = json.loads((tmp_path / "run" / "summary.json").read_text())["overall"]
    assert overall["greedy"]["after"]["mean"] == greedy
    assert overall["sampled"]["after"]["mean"] == pytest.approx(1 - novice, abs=0.15)
