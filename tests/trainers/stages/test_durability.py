"""Damage, a full disk and a kill cost a run at most the steps since its last good checkpoint."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from envgym.runs.folder import RunFolder

Cli = Callable[..., int]
Change = Callable[[dict[str, Any]], object]

_STATE, _TENSORS = "state.json", "tensors.pt"
_FILES = (_STATE, _TENSORS, "model/model.safetensors", "model/config.json", "model/tokenizer.json")
_DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "other JSON": lambda path: path.write_text('["not", "this"]'),
}


def _values(model: Path) -> dict[str, Any]:
    return {
        "steps": 2,
        "groups": 1,
        "group_size": 2,
        "checkpoint_every": 1,
        "threads": 1,
        "model": {"path": str(model), "context": 128},
        "mix": [{"env": "math_problems-v1", "settings": {"max_turns": 1, "families": ["arithmetic"]}}],
        "sampling": {"max_tokens": 3, "concurrency": 4},
        "optimizer": {"learning_rate": 1e-2},
        "evaluate": {"tasks": 1},
        "reward": {"control": "random"},  # coin flips, so that there is a signal
        "objective": {"name": "dapo", "dynamic_sampling": {"max_attempts": 4, "at_cap": "train"}},
    }


def _change(run: Path, change: Change) -> None:
    values = tomllib.loads((run / "recipe.toml").read_text())
    change(values)
    (run / "recipe.toml").write_text(tomli_w.dumps(values))


@pytest.fixture
def recipe(model_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "rl.toml"
    path.write_text(tomli_w.dumps(_values(model_folder)))
    return path


@pytest.fixture
def begun(cli: Cli, recipe: Path, tmp_path: Path) -> Path:
    """A run with checkpoints of steps 1 and 2, whose recipe now asks for a third."""
    run = tmp_path / "run"
    assert cli("train", recipe, "--out", run) == 0
    for file in ("summary.json", "evaluations/after.json"):
        (run / file).unlink()
    _change(run, lambda values: values.update(steps=3))
    return run


def _weights(run: Path, step: int = 3) -> bytes:
    return (run / "checkpoints" / f"step-{step:06d}" / "model" / "model.safetensors").read_bytes()


@pytest.fixture
def whole(cli: Cli, recipe: Path, tmp_path: Path) -> bytes:
    """Weights after three steps without a break."""
    assert cli("train", recipe, "--set", "steps=3", "--out", tmp_path / "whole") == 0
    return _weights(tmp_path / "whole")


def test_whatever_is_damaged_the_run_goes_back_one_checkpoint(
    cli: Cli, begun: Path, whole: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kind of damage to each file: a message names it, and the run ends where an unbroken one does."""
    assert _weights(begun, 1) != _weights(begun, 2)
    for file in _FILES:
        for name, damage in _DAMAGE.items():
            run = tmp_path / f"{name}-{file.replace('/', '-')}"
            shutil.copytree(begun, run)
            damage(run / "checkpoints" / "step-000002" / file)
            capsys.readouterr()
            assert cli("train", "--resume", run) == 0
            said = " ".join(capsys.readouterr().err.split())
            assert "checkpoint step-000002 is damaged" in said, (name, said)
            assert "going back to step-000001" in said
            assert _weights(run) == whole, (name, file)
            assert [row["step"] for row in RunFolder.existing(run).metrics()] == [1, 2, 3]
            shutil.rmtree(run)


def test_when_every_checkpoint_is_damaged_the_run_says_so_and_touches_nothing(
    cli: Cli, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _DAMAGE["empty"](begun / "checkpoints" / "step-000001" / _STATE)
    _DAMAGE["missing"](begun / "checkpoints" / "step-000002" / _TENSORS)
    assert cli("train", "--resume", begun) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "step-000002 is damaged: tensors.pt is missing" in said
    assert "step-000001 is damaged: state.json has 0 bytes" in said
    assert "Traceback" not in said
    assert [row["step"] for row in RunFolder.existing(begun).metrics()] == [1, 2]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda values: values["model"].update(path="builtin:tiny"), "model.path = "),
        (lambda values: values["model"].update(lora_rank=2), "model.lora_rank = 0"),
        (lambda values: values.update(objective={"name": "grpo"}), "objective.name = 'dapo'"),
    ],
    ids=["model", "adapters", "objective"],
)
def test_a_checkpoint_of_another_recipe_is_refused(
    cli: Cli, begun: Path, capsys: pytest.CaptureFixture[str], change: Change, named: str
) -> None:
    _change(begun, change)
    assert cli("train", "--resume", begun) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"step-000002 is a checkpoint of a run with {named}" in said
    assert "set it back, or begin a new run" in said
    assert [row["step"] for row in RunFolder.existing(begun).metrics()] == [1, 2]


def test_tensors_that_do_not_fit_are_refused(cli: Cli, begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file of the checkpoint can be read, but the optimizer is not there."""
    folder = begun / "checkpoints" / "step-000002"
    (folder / "manifest.json").unlink()
    tensors = torch.load(folder / _TENSORS, weights_only=True)
    torch.save({name: tensors[name] for name in list(tensors)[1:]}, folder / _TENSORS)
    assert cli("train", "--resume", begun) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "step-000002 is not a checkpoint of this recipe and this model" in said


def test_a_full_disk_stops_the_run_and_it_goes_on_elsewhere(
    cli: Cli,
    recipe: Path,
    whole: bytes,
    tmp_path: Path,
    small_disk: Callable[[int], AbstractContextManager[Path]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Sizes at which each kind of file is the one that does not fit; what was written is whole at each of them."""
    named = set()
    one = sum(p.stat().st_size for p in (tmp_path / "whole/checkpoints/step-000003").rglob("*") if p.is_file())
    for tenth in (1, 4, 9, 11, 12, 15, 18, 22):
        with small_disk(one * tenth // 10) as disk:
            run = disk / "run"
            code = cli("train", recipe, "--set", "steps=3", "--out", run)
            said = " ".join(capsys.readouterr().err.split())
            if code == 0:
                continue
            assert code == 2, said
            assert "could not be written" in said
            assert "MiB free there" in said
            assert "Traceback" not in said
            assert not list(run.rglob("*.draft"))
            saved = tmp_path / f"saved-{tenth}"
            shutil.copytree(run, saved)
        if (saved / "recipe.toml").is_file():
            assert f"envgym train --resume {run}" in said
            assert cli("train", "--resume", saved) == 0
            assert _weights(saved) == whole
            named.add(said.partition(" could not be written")[0].rpartition("/")[2])
    assert named >= {"model", "tensors.pt"}


def test_a_kill_inside_a_checkpoint_or_anywhere_else_costs_nothing(cli: Cli, recipe: Path, tmp_path: Path) -> None:
    """kill -9 while a draft is there, then at a random instant; the run ends as if nothing had happened."""
    run, whole = tmp_path / "killed", tmp_path / "whole"
    words = [sys.executable, "-c", "from envgym.cli import main; main()", "train"]

    def kill(*more: str | Path, when: Callable[[], bool]) -> None:
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([*words, *map(str, more)], **quiet) as process:
            while not when():
                assert process.poll() is None, "the run ended before it could be killed"
            process.kill()

    def drafted() -> bool:
        return any((run / "checkpoints").glob("*.draft"))

    kill(recipe, "--set", "steps=200", "--out", run, when=drafted)
    rng = random.Random(os.getpid())

    def later() -> bool:
        time.sleep(rng.random() * 0.3)
        found = (path.name.removeprefix("step-") for path in (run / "checkpoints").glob("step-*"))
        return any(int(step) >= 3 for step in found if step.isdecimal())

    kill("--resume", run, when=later)
    done = len(RunFolder.existing(run).metrics()) + 2
    _change(run, lambda values: values.update(steps=done))
    assert cli("train", "--resume", run) == 0
    assert cli("train", recipe, "--set", f"steps={done}", "--out", whole) == 0
    assert _weights(run, done) == _weights(whole, done)
    assert not list(run.rglob("*.draft"))
