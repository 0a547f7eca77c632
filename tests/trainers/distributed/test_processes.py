"""``envgym train`` with two processes, from the recipe to a model that one can use, through kills and stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_RECIPE = """
steps = {steps}
groups = 2
group_size = 2
checkpoint_every = 1
threads = 1
objective = "grpo"
[model]
path = "builtin:tiny"
context = 320
[[mix]]
env = "refusal_safety-v1"
[optimizer]
learning_rate = 1e-4
[sampling]
max_tokens = 8
[evaluate]
tasks = 1
"""
_ENVGYM = [sys.executable, "-m", "envgym"]
_SECONDS = 120.0
"""Patience with a busy machine."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """``start("train", …)`` starts a command, which does not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: Any, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        command = [*(before or _ENVGYM), *map(str, words)]
        started.append(
            subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def _recipe(folder: Path, steps: int) -> Path:
    path = folder / "recipe.toml"
    path.write_text(_RECIPE.format(steps=steps))
    return path


def _wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Wait for the checkpoint of a step."""
    end = time.monotonic() + _SECONDS
    while not (run / "checkpoints" / f"step-{step:06d}").is_dir():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)


def _steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def _is_there(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _child(parent: int, rank: int) -> int:
    """Return the process that is ``rank`` of those that ``parent`` started."""
    for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{number}/environ").read_bytes().split(b"\0"):
            return int(number)
    raise AssertionError(f"no process {rank}")


def test_a_run_goes_on_through_a_stop_and_a_death_at_other_numbers_of_processes(
    tmp_path: Path, start: Any
) -> None:
    """Ctrl-C on two processes saves the step in hand and ends with 130. Resumed by two, one of which is killed,
    the run ends in seconds with a message and exit code 1, and no process is left. One process then finishes it,
    and its checkpoints have the layout that everything else reads."""
    run = tmp_path / "run"
    process = start("train", _recipe(tmp_path, 400), "--out", run, "--processes", 2)
    _wait_for_step(run, 1, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=_SECONDS)
    assert process.returncode == 130, said
    stopped = _steps(run)[-1]
    assert (run / "checkpoints" / f"step-{stopped:06d}" / "shards").is_dir(), said

    process = start("train", "--resume", run, "--processes", 2)
    _wait_for_step(run, stopped + 2, process)
    first, second = _child(process.pid, 0), _child(process.pid, 1)
    os.kill(second, signal.SIGKILL)
    killed = time.monotonic()
    said, _ = process.communicate(timeout=_SECONDS)
    assert process.returncode == 1, said
    assert time.monotonic() - killed < 30
    assert "process 1 of 2 died" in said
    assert "Traceback" not in said, said
    assert not Path(f"/proc/{first}").exists()

    recipe = (run / "recipe.toml").read_text()
    last = _steps(run)[-1]
    (run / "recipe.toml").write_text(recipe.replace("steps = 400", f"steps = {last + 1}"))
    process = start("train", "--resume", run)
    said, _ = process.communicate(timeout=_SECONDS)
    assert process.returncode == 0, said
    assert _steps(run) == list(range(1, last + 2))
    assert (run / "checkpoints" / f"step-{last + 1:06d}" / "model" / "model.safetensors").is_file()


def test_a_run_whose_launcher_is_killed_is_saved_and_ends(tmp_path: Path, start: Any) -> None:
    """Nobody is left to pass on a signal: the first process stops as by one, and the second with it."""
    run = tmp_path / "run"
    launcher = start("train", _recipe(tmp_path, steps=100), "--out", run, "--processes", 2)
    _wait_for_step(run, 1, launcher)
    ranks = [_child(launcher.pid, rank) for rank in (0, 1)]
    launcher.kill()
    said, _ = launcher.communicate(timeout=_SECONDS)  # ends with the last of those that write there
    end = time.monotonic() + _SECONDS
    while any(map(_is_there, ranks)):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "resume with" in said
    assert _steps(run) == list(range(1, len(_steps(run)) + 1))
    again = start("train", "--resume", run, "--processes", 2)
    _wait_for_step(run, len(_steps(run)) + 1, again)


def test_torchrun_runs_a_recipe(tmp_path: Path, start: Any) -> None:
    """Under torchrun the first process alone writes, and a shipped recipe runs to its report."""
    recipe = Path(__file__).parents[3] / "recipes" / "quickstart.toml"
    torchrun = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "envgym",
    )
    few = {"steps": 2, "groups": 4, "group_size": 2, "evaluate.tasks": 1, "threads": 1, "sandbox": "unsafe_local"}
    settings = [word for name, value in few.items() for word in ("--set", f"{name}={value}")]
    process = start("train", recipe, *settings, "--out", "run", before=torchrun)
    said, _ = process.communicate(timeout=2 * _SECONDS)
    assert process.returncode == 0, said
    assert _steps(tmp_path / "run") == [1, 2]
    assert said.count("report:") == 1
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_new_model_imitates_in_two_processes_as_in_one(tmp_path: Path, start: Any) -> None:
    """Only the first process knows the demonstrations, and so the tokenizer; losses are those of one process."""
    recipe = tmp_path / "sft.toml"
    recipe.write_text(
        'stage = "sft"\nexamples = 12\nbatch_size = 4\nthreads = 1\n[model]\n'
        "new = { vocabulary = 300, hidden_size = 32, layers = 2, heads = 2 }\n"
        '[[mix]]\nenv = "refusal_safety-v1"\n[optimizer]\nlearning_rate = 1e-3\n[evaluate]\ntasks = 1\n'
        "[sampling]\nmax_tokens = 4\n"
    )
    losses = []
    for count in (1, 2):
        run = tmp_path / f"run-{count}"
        process = start("train", recipe, "--out", run, "--processes", count)
        said, _ = process.communicate(timeout=_SECONDS)
        assert process.returncode == 0, said
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows])
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
