"""``envgym train --with-controls`` runs the recipe under every control, and one table compares them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from toys import Letter

from envgym.env.chat_env import ChatEnv
from envgym.errors import SandboxError
from envgym.records import Score, Split, Task, Trajectory
from envgym.runs.folder import RunFolder

_ALL = ["entropy", "length", "random", "format", "wrong_label"]


class Deaf(Letter):
    """Cannot be scored under another task's reference."""

    def tasks(self, split: Split) -> Sequence[Task]:
        tasks = super().tasks(split)
        return [
            Task(id=t.id, problem=t.problem, split=split, messages=t.messages, reference=i)
            for i, t in enumerate(tasks)
        ]

    def score(self, trajectory: Trajectory) -> Score:
        if not trajectory.task.id.endswith(f"-{trajectory.task.reference}"):
            raise SandboxError("the verifier is deaf")
        return super().score(trajectory)


Cli = Callable[..., int]


@pytest.fixture
def write(model_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """``write(steps=…)``: a recipe of two short steps."""

    def recipe(environment: type[ChatEnv] = Letter, **values: Any) -> Path:
        path = tmp_path / "recipe.toml"
        whole = {
            "mix": [{"env": f"{environment.__module__}:{environment.__name__}", "name": "toy"}],
            "model": {"path": str(model_folder), "context": 32},
            "sampling": {"max_tokens": 1},
            "optimizer": {"learning_rate": 1e-2},
            "evaluate": {"tasks": 30},
            "groups": 2,
            "group_size": 4,
            "steps": 2,
            "seed": 3,
            "threads": 1,
            "objective": {"name": "grpo"},
            **values,
        }
        path.write_text(tomli_w.dumps(whole))
        return path

    return recipe


def _json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text())
    return values


def test_every_control_is_a_run_with_the_recipes_own_budget(
    cli: Cli, write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli("train", write(), "--out", out, "--with-controls") == 0
    plain = tomllib.loads((out / "recipe.toml").read_text())
    for name in _ALL:
        place = out / "controls" / name
        recipe = tomllib.loads((place / "recipe.toml").read_text())
        assert recipe.pop("reward")["control"] == name
        assert recipe == {key: value for key, value in plain.items() if key != "reward"}
        assert len(RunFolder.existing(place).metrics()) == 2
        before, own = (folder / "evaluations" / "before.json" for folder in (out, place))
        assert own.read_bytes() == before.read_bytes()
        assert (place / "report.html").is_file()
    record = _json(out / "controls.json")
    assert list(record["rows"]) == ["trained", *_ALL]
    assert list(record["best_of_start"]["temperatures"]) == ["0", "0.25", "0.5", "0.75", "1"]
    for row in record["rows"].values():
        assert list(row["overall"]) == list(row["environments"]["toy"]) == ["greedy", "sampled"]
        place = out / row["run"]
        after = _json(place / "evaluations" / "after.json")["decodings"]
        for decoding, scores in after.items():
            rewards = scores["toy"]["rewards"]
            assert row["overall"][decoding]["after"]["mean"] == pytest.approx(sum(rewards.values()) / 30)
    known = {d: record["rows"]["trained"]["overall"][d]["before"]["mean"] for d in ("greedy", "sampled")}
    start = record["best_of_start"]["temperatures"]
    assert known == {"greedy": start["0"]["overall"]["mean"], "sampled": start["1"]["overall"]["mean"]}
    table = capsys.readouterr().out
    for words in ("trained ", *_ALL, "start at its best", "explained by a control:"):
        assert words in table
    report = (out / "report.html").read_text()
    assert "explained by a control" in report
    assert "wrong_label" in report


def test_the_start_model_is_measured_at_every_temperature_and_the_best_counts(
    cli: Cli, write: Callable[..., Path], tmp_path: Path
) -> None:
    """At the recipe's own temperature, the scores are those from before training; what is there is kept."""
    out = tmp_path / "out"
    recipe = write(sampling={"max_tokens": 1, "temperature": 0.6})
    assert cli("train", recipe, "--out", out, "--controls", "random") == 0
    path = out / "controls" / "start.json"
    kept = _json(path)
    assert list(kept["temperatures"]) == ["0.25", "0.5", "0.75", "1.0"]
    before = _json(out / "evaluations" / "before.json")["decodings"]
    measured = {"0.0": before["greedy"], **kept["temperatures"], "0.6": before["sampled"]}
    rewards = {t: scores["toy"]["rewards"] for t, scores in measured.items()}
    assert len({json.dumps(r) for r in rewards.values()}) > 2, "the temperature changes what is sampled"
    means = {t: sum(r.values()) / len(r) for t, r in rewards.items()}
    start = _json(out / "controls.json")["best_of_start"]
    assert means[str(float(start["best"]))] == max(means.values())
    found = {str(float(t)): values["overall"]["mean"] for t, values in start["temperatures"].items()}
    assert found == pytest.approx(means)
    kept["temperatures"]["0.25"]["toy"]["rewards"] = dict.fromkeys(rewards["0.0"], 7.0)
    del kept["temperatures"]["0.5"]
    path.write_text(json.dumps(kept))
    assert cli("train", "--resume", out) == 0
    assert _json(out / "controls.json")["best_of_start"]["best"] == "0.25", "not measured again"
    assert _json(path)["temperatures"]["0.5"]["toy"]["rewards"] == rewards["0.5"]


@pytest.mark.parametrize("budget", [{"max_minutes": 1e-5}, {"max_sampled_tokens": 1}], ids=str)
def test_a_control_takes_the_steps_that_the_budget_left(
    cli: Cli, write: Callable[..., Path], tmp_path: Path, budget: dict[str, Any]
) -> None:
    """A control that is slower than the run, or writes more, must not get fewer steps."""
    out = tmp_path / "out"
    assert cli("train", write(steps=50, **budget), "--out", out, "--controls", "random") == 0
    assert len(RunFolder.existing(out).metrics()) == 1
    recipe = tomllib.loads((out / "controls" / "random" / "recipe.toml").read_text())
    assert (recipe["steps"], recipe["max_minutes"], recipe["max_sampled_tokens"]) == (1, 0, 0)
    assert len(RunFolder.existing(out / "controls" / "random").metrics()) == 1


def test_only_the_controls_that_were_named(cli: Cli, write: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("train", write(), "--out", out, "--controls", "random, format") == 0
    assert list(_json(out / "controls.json")["rows"]) == ["trained", "random", "format"]
    assert not (out / "controls" / "entropy").exists()


def test_controls_can_be_added_to_a_finished_run(cli: Cli, write: Callable[..., Path], tmp_path: Path) -> None:
    """What was done is not done again."""
    out = tmp_path / "out"
    assert cli("train", write(), "--out", out) == 0
    assert not (out / "controls.json").exists()
    assert cli("train", "--resume", out, "--controls", "random") == 0
    first = (out / "controls" / "random" / "metrics.jsonl").stat().st_mtime_ns
    assert cli("train", "--resume", out, "--controls", "length") == 0
    assert list(_json(out / "controls.json")["rows"]) == ["trained", "random", "length"]
    assert (out / "controls" / "random" / "metrics.jsonl").stat().st_mtime_ns == first


@pytest.mark.parametrize(
    ("words", "values", "message"),
    [
        (["--controls", "entrpy"], {}, "unknown control 'entrpy'; allowed: entropy, length, random"),
        (["--with-controls"], {"reward": {"control": "random"}}, "that run is a control itself"),
        (["--with-controls"], {"stage": "sft", "steps": None}, "stage 'sft' has no controls"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(
    cli: Cli,
    write: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    values: dict[str, Any],
    message: str,
) -> None:
    path = write()
    recipe = {**tomllib.loads(path.read_text()), **values}
    if recipe.get("stage") == "sft":
        recipe = {key: recipe[key] for key in ("stage", "mix", "model")}
    path.write_text(tomli_w.dumps(recipe))
    assert cli("train", path, "--out", tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_wrecked_policy_is_run_again_at_lower_rates_and_the_best_try_counts(
    cli: Cli, write: Callable[..., Path], tmp_path: Path
) -> None:
    """Every try is kept and listed. A rate of 1 makes noise of any policy."""
    out = tmp_path / "out"
    recipe = write(optimizer={"learning_rate": 1.0}, steps=4, groups=4)
    assert cli("train", recipe, "--out", out, "--controls", "random") == 0
    row = _json(out / "controls.json")["rows"]["random"]
    tries = row["tries"]
    assert [one["wrecked"] for one in tries[:-1]] == [True] * (len(tries) - 1)
    assert len(tries) > 1
    assert [one["run"] for one in tries] == ["controls/random", "controls/random-third", "controls/random-tenth"][
        : len(tries)
    ]
    rates = [one["learning_rate"] for one in tries]
    assert rates == pytest.approx([1, 1 / 3, 1 / 10][: len(tries)])
    for one in tries:
        recorded = tomllib.loads((out / one["run"] / "recipe.toml").read_text())
        assert recorded["optimizer"]["learning_rate"] == one["learning_rate"]
    gains = [sum(part["gain"]["mean"] for part in one["overall"].values()) for one in tries]
    assert row["run"] == tries[gains.index(max(gains))]["run"]


def test_a_control_that_cannot_run_is_named_and_the_others_go_on(
    cli: Cli, write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli("train", write(Deaf), "--out", out, "--controls", "wrong_label,random") == 0
    record = _json(out / "controls.json")
    assert list(record["rows"]) == ["trained", "random"]
    assert record["not_run"] == {"wrong_label": "the verifier is deaf"}
    assert "not run: wrong_label: the verifier is deaf" in capsys.readouterr().out
    assert cli("train", "--resume", out, "--controls", "random") == 0


def test_ctrl_c_inside_a_control_stops_and_resume_goes_on_there(
    cli: Cli, write: Callable[..., Path], tmp_path: Path
) -> None:
    """Exit code 130 after the control's step; the run, and the controls before it, are not run again."""
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    recipe = write(steps=12)
    inside = stopped / "controls" / "random" / "metrics.jsonl"

    def interrupt() -> None:
        while not (inside.is_file() and inside.read_text().count("\n") >= 2):
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    assert cli("train", recipe, "--out", stopped, "--controls", "length,random") == 130
    thread.join(10)
    assert not (stopped / "controls.json").exists()
    assert 2 <= len(RunFolder.existing(inside.parent).metrics()) < 12
    done = (stopped / "controls" / "length" / "summary.json").stat().st_mtime_ns
    assert cli("train", "--resume", stopped) == 0
    assert (stopped / "controls" / "length" / "summary.json").stat().st_mtime_ns == done
    assert cli("train", recipe, "--out", whole, "--controls", "length,random") == 0
    one, two = (_json(folder / "controls.json") for folder in (stopped, whole))
    assert list(one["rows"]) == list(two["rows"]) == ["trained", "length", "random"]
    steps = [len(RunFolder.existing(folder / "controls" / "random").metrics()) for folder in (stopped, whole)]
    assert steps == [12, 12]
