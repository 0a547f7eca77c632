"""A run that was killed or stopped goes on as if nothing had happened, through the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from envgym.runs.folder import RunFolder
from envgym_trainers.models.checkpoint import latest_checkpoint
from envgym_trainers.stages.stopping import StopRequest

_TIMES = ("seconds", "tokens_per_second")
_MIX = [{"env": "math_problems-v1", "settings": {"max_turns": 2, "families": ["arithmetic"]}}]

_CLOCKED = ("state.json", "manifest.json")
"""Files of a checkpoint that hold the time that training took, or its checksum."""
_RECORDS = ("checkpoints", "evaluations", "trajectories")
Cli = Callable[..., int]


@pytest.fixture
def reinforcement(model_folder: Path, tmp_path: Path) -> Path:
    """A recipe of sixteen short steps."""
    return _write(
        tmp_path / "rl.toml",
        {
            "steps": 16,
            "groups": 2,
            "group_size": 2,
            "checkpoint_every": 2,
            "threads": 1,
            "model": {"path": str(model_folder), "context": 128},
            "mix": _MIX,
            "sampling": {"max_tokens": 4, "concurrency": 8},
            "optimizer": {"learning_rate": 1e-3, "decay": "linear"},
            "evaluate": {"tasks": 2},
            # Coin flips: a random model never solves a problem, and a run without a signal would prove little.
            "reward": {"control": "random"},
            "objective": {
                "name": "dapo",
                "overlong": {"max_tokens": 8, "cache_tokens": 4},
                "dynamic_sampling": {"max_attempts": 4, "at_cap": "train"},
            },
        },
    )


@pytest.fixture
def supervised(tmp_path: Path) -> Path:
    """A recipe of two dozen updates that makes a new model."""
    return _write(
        tmp_path / "sft.toml",
        {
            "stage": "sft",
            "examples": 48,
            "epochs": 4,
            "batch_size": 8,
            "checkpoint_every": 2,
            "threads": 1,
            "model": {"context": 192, "new": {"vocabulary": 320, "hidden_size": 16, "layers": 1, "heads": 2}},
            "mix": _MIX,
            "optimizer": {"learning_rate": 1e-2},
            "sampling": {"max_tokens": 4},
            "evaluate": {"tasks": 2},
        },
    )


def _write(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(tomli_w.dumps(values))
    return path


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run without what depends on the clock."""
    rows = RunFolder.existing(folder).metrics()
    return [
        {name: value for name, value in row.items() if not any(time in name for time in _TIMES)} for row in rows
    ]


def _wait_for_steps(folder: Path, steps: int, alive: Callable[[], bool]) -> None:
    path = folder / "metrics.jsonl"
    while not (path.is_file() and path.read_text().count("\n") >= steps):
        assert alive(), "the run ended before it could be interrupted"
        time.sleep(0.005)


def _check_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [row["step"] for row in found] == list(range(1, len(expected) + 1))
    for one, two in zip(found, expected, strict=True):
        assert one == two


def _check_bytes(one: Path, two: Path) -> None:
    """Weights, optimizer, evaluations and trajectories of two runs are equal in every byte; the clock is apart."""

    def names(run: Path) -> list[str]:
        files = (p for part in _RECORDS for p in (run / part).rglob("*") if p.is_file())
        return sorted(str(p.relative_to(run)) for p in files if p.name not in _CLOCKED)

    found = [names(run) for run in (one, two)]
    assert found[0] == found[1]
    assert any(name.endswith("model.safetensors") for name in found[0])
    assert [name for name in found[0] if (one / name).read_bytes() != (two / name).read_bytes()] == []


@pytest.mark.parametrize("objective", ["dapo", "ppo"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    cli: Cli, reinforcement: Path, tmp_path: Path, objective: str
) -> None:
    """kill -9 after the third step or later; every step is there once, with the numbers of an unbroken run.

    With PPO, the critic's weights and optimizer are in the numbers: its values shape every later advantage.
    """
    if objective == "ppo":
        values = tomllib.loads(reinforcement.read_text())
        critic = {"objective": {"name": "ppo"}, "auxiliary": {"critic": {"learning_rate": 1e-2}}}
        _write(reinforcement, {**values, **critic})
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = "import sys; from envgym.cli import main; main()"
    words = [sys.executable, "-c", command, "train", str(reinforcement), "--out", str(killed)]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        _wait_for_steps(killed, 3, lambda: process.poll() is None)
        process.kill()
    assert not (killed / "summary.json").exists()
    assert len(_rows(killed)) < 16
    assert cli("train", "--resume", killed) == 0
    assert cli("train", reinforcement, "--out", whole) == 0
    _check_same(_rows(killed), _rows(whole))
    one, two = (json.loads((folder / "summary.json").read_text()) for folder in (killed, whole))
    assert one["environments"] == two["environments"]
    assert one["steps"] == 16
    assert (killed / "report.html").is_file()
    steps = sorted(path.name for path in (killed / "trajectories").iterdir())
    assert steps == [f"step-{step:06d}.jsonl" for step in range(1, 17)]
    _check_bytes(killed, whole)


def test_a_budget_of_tokens_counts_those_sampled_before_a_resume(
    cli: Cli, reinforcement: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training ends after the first step that reaches it, and after the same one when steps are made again; the
    time left is told by it."""
    place = tmp_path / "run"
    budget = ["--set", "max_sampled_tokens=200", "--set", "checkpoint_every=1", "--set", "steps=1000000"]
    assert cli("train", reinforcement, *budget, "--out", place) == 0
    told = [line.rpartition("ETA ")[2] for line in capsys.readouterr().err.splitlines() if "/1000000 |" in line]
    assert told
    assert all(len(time) == len("0:00") for time in told), told
    rows = _rows(place)
    tokens = [row["sampled_tokens"] for row in rows]
    assert sum(tokens[:-1]) < 200 <= sum(tokens)
    assert 2 < len(rows) < 16
    assert json.loads((place / "summary.json").read_text())["ended"] == "the budget of 200 sampled tokens"
    for step in (len(rows), len(rows) - 1):
        shutil.rmtree(place / "checkpoints" / f"step-{step:06d}")
    (place / "summary.json").unlink()
    assert cli("train", "--resume", place) == 0
    _check_same(_rows(place), rows)


def test_measuring_in_training_changes_nothing_of_it(cli: Cli, reinforcement: Path, tmp_path: Path) -> None:
    """The same trajectories and weights, byte for byte, with an evaluation after every step and with none."""
    plain, measured = tmp_path / "plain", tmp_path / "measured"
    short = ["--set", "steps=4", "--set", "evaluate.samples=3"]
    assert cli("train", reinforcement, *short, "--out", plain) == 0
    assert cli("train", reinforcement, *short, "--set", "evaluate.every=1", "--out", measured) == 0
    assert [path.stem for path in sorted((measured / "evaluations").iterdir())] == [
        "after",
        "before",
        *(f"step-{step:06d}" for step in (1, 2, 3)),
    ]
    _check_same(_rows(measured), _rows(plain))
    shutil.rmtree(measured / "checkpoints" / "best")
    for path in (measured / "evaluations").glob("step-*.json"):
        path.unlink()
    _check_bytes(measured, plain)


@pytest.fixture
def interrupt() -> Iterator[Callable[[Path, int], None]]:
    """``interrupt(folder, n)``: send this process one Ctrl-C once the run has made ``n`` steps."""
    threads: list[threading.Thread] = []

    def start(folder: Path, steps: int) -> None:
        def work() -> None:
            _wait_for_steps(folder, steps, lambda: True)
            os.kill(os.getpid(), signal.SIGINT)

        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(10)


@pytest.mark.parametrize("stage", ["reinforcement", "supervised"])
def test_ctrl_c_stops_after_the_step_and_keeps_it(
    cli: Cli, request: pytest.FixtureRequest, tmp_path: Path, interrupt: Callable[[Path, int], None], stage: str
) -> None:
    """Exit code 130, a checkpoint of the last step, and --resume ends where an unbroken run would have."""
    recipe, stopped, whole = request.getfixturevalue(stage), tmp_path / "stopped", tmp_path / "whole"
    interrupt(stopped, 3)
    assert cli("train", recipe, "--out", stopped) == 130
    rows = _rows(stopped)
    assert 3 <= len(rows) < (16 if stage == "reinforcement" else 24)
    checkpoint = latest_checkpoint(stopped / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.folder.name == f"step-{len(rows):06d}"
    assert cli("train", "--resume", stopped) == 0
    assert cli("train", recipe, "--out", whole) == 0
    _check_same(_rows(stopped), _rows(whole))
    assert (stopped / "summary.json").is_file()


def test_a_supervised_model_can_be_trained_further(
    cli: Cli, supervised: Path, reinforcement: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Supervised, then reinforcement from its run folder: each stage reports, the loss falls."""
    first, second = tmp_path / "sft", tmp_path / "rl"
    assert cli("train", supervised, "--out", first) == 0
    losses = [row["loss"] for row in _rows(first)]
    assert losses[-1] < losses[0] / 2
    assert "math_problems" in capsys.readouterr().out
    words = ["--set", f'model.path="{first}"', "--set", "steps=1", "--set", "model.context=192"]
    assert cli("train", reinforcement, *words, "--out", second) == 0
    assert "gain" in capsys.readouterr().out
    assert cli("train", "--resume", second) == 0, "a finished run may be resumed: it only reports again"


def test_a_second_ctrl_c_ends_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    said: list[str] = []
    with StopRequest(said.append) as stop:
        stop.doing = "step 4"
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        end = time.monotonic() + 30
        while not said and time.monotonic() < end:
            time.sleep(0.001)
        assert said == ["stopping: step 4 is finished and saved first; Ctrl-C again stops at once"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stop_request_elsewhere_than_in_the_main_thread_never_stops() -> None:
    seen: list[bool] = []

    def work() -> None:
        with StopRequest(print) as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
