"""Every setting of ``[evaluate]``, turned in a recipe, changes what is measured, kept and told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

Cli = Callable[..., int]
Train = Callable[..., Path]


@pytest.fixture
def train(cli: Cli, model_folder: Path, tmp_path: Path) -> Train:
    """``train("name", {"tasks": 7}, steps=…)``: the folder of a finished run under these settings."""

    def run(name: str, evaluate: dict[str, Any], steps: int = 1) -> Path:
        recipe = {
            "mix": [{"env": "toys:Letter", "name": "toy"}],
            "model": {"path": str(model_folder), "context": 32},
            "sampling": {"max_tokens": 1},
            "optimizer": {"learning_rate": 1e-2},
            "evaluate": {"tasks": 24, **evaluate},
            "groups": 4,
            "group_size": 8,
            "steps": steps,
            "threads": 1,
            "objective": {"name": "grpo"},
        }
        path = tmp_path / f"{name}.toml"
        path.write_text(tomli_w.dumps(recipe))
        assert cli("train", path, "--out", tmp_path / name) == 0
        return tmp_path / name

    return run


def _json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text())
    return values


def _rewards(folder: Path, decoding: str) -> dict[str, float]:
    found: dict[str, float] = _before(folder, decoding)["rewards"]
    return found


def _before(folder: Path, decoding: str) -> dict[str, Any]:
    found: dict[str, Any] = _json(folder / "evaluations" / "before.json")["decodings"][decoding]["toy"]
    return found


def test_the_temperature_of_evaluation_is_that_of_the_sampled_episodes(train: Train) -> None:
    """Near 0 they are the greedy ones; the greedy ones are the same at any."""
    plain, cold = train("plain", {}), train("cold", {"temperature": 1e-3})
    assert _rewards(plain, "greedy") == _rewards(cold, "greedy") == _rewards(cold, "sampled")
    assert _rewards(plain, "sampled") != _rewards(cold, "sampled")
    assert _json(plain / "summary.json")["decodings"] == {"greedy": 0.0, "sampled": 1.0}
    assert _json(cold / "summary.json")["decodings"] == {"greedy": 0.0, "sampled": 1e-3}


def test_samples_are_episodes_per_problem_and_tasks_are_problems(train: Train) -> None:
    """Three samples make thirds; one greedy episode says all that greedy episodes can."""
    folder = train("run", {"tasks": 7, "samples": 3})
    assert sum(_before(folder, "greedy")["ended"].values()) == 7
    assert sum(_before(folder, "sampled")["ended"].values()) == 21
    thirds = _rewards(folder, "sampled").values()
    assert len(thirds) == 7
    assert {round(3 * reward) % 3 for reward in thirds} - {0}, "a mean of one sample would be 0 or 1"
    overall = _json(folder / "summary.json")["overall"]
    assert {overall[d][when]["n"] for d in ("greedy", "sampled") for when in ("before", "after")} == {7}


def test_the_best_of_the_evaluations_in_training_is_kept_and_named(
    train: Train, cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the table, the summary and the report; and the weights in ``checkpoints/best`` earn what is said."""
    folder = train("run", {"every": 2}, steps=5)
    table = capsys.readouterr().out
    names = sorted(path.stem for path in (folder / "evaluations").iterdir())
    assert names == ["after", "before", "step-000002", "step-000004"]
    greedy = {}
    for step, name in ((2, "step-000002"), (4, "step-000004"), (5, "after")):
        rewards = _json(folder / "evaluations" / f"{name}.json")["decodings"]["greedy"]["toy"]["rewards"]
        greedy[step] = sum(rewards.values()) / len(rewards)
    step = max(greedy, key=lambda s: (greedy[s], -s))
    assert _json(folder / "summary.json")["best"] == {"step": step, "reward": pytest.approx(greedy[step])}
    said = f"best: step {step}, greedy {greedy[step]:.3f}, checkpoints/best"
    assert said in table.splitlines()
    assert said.capitalize() in (folder / "report.html").read_text()
    words = ("--temperature", "0", "--limit", "24", "--max-tokens", "1", "--context", "32", "--json")
    assert cli("eval", "--env", "toys:Letter", "--policy", folder / "checkpoints" / "best", *words) == 0
    measured = json.loads(capsys.readouterr().out)["environments"]["Letter"]["reward"]["mean"]
    assert measured == pytest.approx(greedy[step])


def test_without_evaluations_in_training_no_best_is_named(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the lines of progress say how many episodes a limit cut, as those of training do."""
    folder = train("run", {})
    streams = capsys.readouterr()
    assert sorted(path.stem for path in (folder / "evaluations").iterdir()) == ["after", "before"]
    assert not (folder / "checkpoints" / "best").exists()
    assert _json(folder / "summary.json")["best"] is None
    assert "best:" not in streams.out
    assert "Best:" not in (folder / "report.html").read_text()
    mean = sum(_rewards(folder, "sampled").values()) / 24
    assert f"evaluate before 48/48 | sampled: toy {mean:.2f} (100% cut: tokens) | ETA" in streams.err


@pytest.mark.parametrize("settings", [("--temperature", "0.25"), ("--policy-set", "temperature=0.25")])
def test_eval_tells_the_temperature_that_is_used(
    cli: Cli, model_folder: Path, capsys: pytest.CaptureFixture[str], settings: tuple[str, str]
) -> None:
    """Whichever option set it."""
    command = ("eval", "--env", "toys:Letter", "--policy", model_folder, "--limit", "2", "--max-tokens", "1")
    assert cli(*command, *settings) == 0
    assert capsys.readouterr().out.startswith("temperature 0.25, ")
    assert cli(*command, *settings, "--json") == 0
    assert json.loads(capsys.readouterr().out)["temperature"] == 0.25
