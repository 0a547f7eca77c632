"""Mistakes of a first hour: each answer says what was wrong, what is allowed, and what to do; nothing is left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Result, Run

RECIPE = """
steps = 1
[model]
path = "builtin:tiny"
[[mix]]
env = "toys:Adder"
[objective]
name = "dapo"
dynamic_sampling = { max_attempts = 2 }
overlong = { max_tokens = 192, cache_tokens = 64 }
"""
SLOW = "stage = 'terminals:Slow'\n"
GOLD = ("eval", "--env", "toys:Adder", "--policy", "gold")


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "slow.toml").write_text(SLOW)


def refused(result: Result, *words: str) -> None:
    """The command ends with 2, one error that holds ``words``, and no traceback."""
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    said = " ".join(result.err.split())
    for word in words:
        assert word in said, said


def foreign(folder: Path) -> None:
    folder.mkdir()
    for name in ("thesis.tex", "a.png", "b.png", "c.png"):
        (folder / name).write_text("mine")


def a_file(folder: Path) -> None:
    folder.write_text("mine")


def a_dangling_link(folder: Path) -> None:
    folder.symlink_to("nowhere")


def a_run(folder: Path) -> None:
    folder.mkdir()
    (folder / "recipe.toml").write_text(RECIPE)


def below_a_file(folder: Path) -> None:
    folder.parent.write_text("")


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (foreign, "my papers", ["the folder holds a.png, b.png, c.png and 1 more", "empty or does not exist"]),
        (a_file, "notes", ["that is a file; name a folder that is empty or does not exist"]),
        (a_dangling_link, "link", ["that is a file; name a folder"]),
        (a_run, "old run", ["already holds a run", "envgym train --resume 'old run'", "--out"]),
        (below_a_file, "file/run", ["file/run", "Not a directory"]),
        (lambda _: None, "x" * 300, ["File name too long", "name another folder"]),
        (lambda _: None, "a\0b", ["embedded null byte"]),
        (lambda _: None, "/proc/run", ["no run folder can be made at /proc/run"]),
    ],
)
def test_a_folder_that_is_no_place_for_a_run_is_refused_and_left_alone(
    run: Run, tmp_path: Path, make: Callable[[Path], None], name: str, words: list[str]
) -> None:
    if "\0" not in name and len(name) < 100:
        make(tmp_path / name)
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    refused(run("train", "slow.toml", "--out", name), *words)
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("mix.0.env=toys:Subber", ["'Subber'; did you mean", "allowed: Adder"]),
        ("mix.0.env=adder", ["unknown environment 'adder'", "allowed: "]),
        ("mix.0.settings.numbrs=3", ["unknown key 'numbrs'; did you mean 'numbers'?"]),
        ("mix.0.settings.numbers=-3", ["numbers: Input should be greater than or equal to 1"]),
        ("mix.0.weight=0", ["at least one environment needs a positive weight"]),
        (
            "model.path=Qwen/Qwen3-0.6B",
            ["no model at", "hf download Qwen/Qwen3-0.6B --local-dir models/Qwen3-0.6B"],
        ),
        ("model.path=", ["no model at ''"]),
        ("model.path=builtin:smollm", ["unknown built-in model 'smollm'; did you mean 'smollm2'"]),
        ("model.device=gpu", ["model.device", "'cpu'"]),
        ("model.device=cuda:7", ["model.device"]),
        ("model.tool_format=hermse", ["unknown tool format 'hermse'; did you mean 'hermes'"]),
        ("model.context=8", ["model.context: Input should be greater than or equal to 16"]),
        ("sampling.max_tokens=-1", ["sampling.max_tokens: Input should be greater than or equal to 1"]),
        ("sandbox=dokcer", ["unknown sandbox 'dokcer'; did you mean 'docker'"]),
        ("judge=nonsense", ["http://HOST:PORT/v1"]),
        ("roles.judge.policy=gold", ["no environment of the mix has that role"]),
        ("objective.name=grop", ["unknown objective 'grop'; did you mean 'grpo'"]),
        ("engine=parrot", ["unknown engine 'parrot'", "allowed: "]),
        ("steps=many", ["steps: Input should be a valid integer"]),
        ("steps=0", ["steps: Input should be greater than or equal to 1"]),
        ("group_size=1", ["group_size: Input should be greater than or equal to 2"]),
        ("optimizer.learning_rte=1", ["unknown key 'optimizer.learning_rte'; did you mean 'learning_rate'?"]),
        ("mix.4.weight=1", ["'4' is not an index; here 0 to 0 are"]),
        ("ünïcode.κ=1", ["unknown key 'ünïcode'"]),
    ],
)
def test_what_a_recipe_gets_wrong_is_told_before_a_folder_is_made(
    run: Run, tmp_path: Path, override: str, words: list[str]
) -> None:
    refused(run("train", "r.toml", "--set", override, "--out", "out"), *words)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_refused_before_it_recorded_anything_leaves_no_folder(run: Run, tmp_path: Path) -> None:
    refused(run("train", "slow.toml", "--set", "trouble=refuse", "--out", "out"), "this cannot be done here")
    assert not (tmp_path / "out").exists()
    refused(run("train", "slow.toml", "--set", "trouble=refuse_late", "--out", "out"), "this could not go on")
    assert (tmp_path / "out" / "metrics.jsonl").is_file()


def test_what_a_run_left_that_was_killed_before_it_began_is_in_nobody_s_way(run: Run, tmp_path: Path) -> None:
    for name in ("trajectories", "checkpoints", "evaluations"):
        (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out" / "versions.json").write_text("{}")
    (tmp_path / "out" / "recipe.toml.draft").write_text("")
    words = ("train", "slow.toml", "--set", "trouble=refuse_late", "--out", "out")
    refused(run(*words), "this could not go on")


def test_an_empty_folder_may_be_given(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    refused(run("train", "slow.toml", "--set", "trouble=refuse_late", "--out", "out"), "this could not go on")
    assert (tmp_path / "out" / "metrics.jsonl").is_file()
    refused(
        run("train", "slow.toml", "--out", "out"),
        "already holds a run: continue it with envgym train --resume out",
    )


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (
            ["objective.name=grpo"],
            "what the recipe sets for dapo and grpo does not have: dynamic_sampling, overlong",
        ),
        (["objective.name=ppo", "objective.gae_lambda=0.9"], "ppo does not have: dynamic_sampling, overlong"),
        (
            ["stage=sft"],
            "stage=sft leaves out what the recipe sets for rl and sft does not have: steps, objective",
        ),
        (["mix.0.env=math_problems"], "Adder and math_problems does not have: trouble"),
    ],
)
def test_a_plugin_that_changes_takes_its_settings_along_and_it_is_said(
    run: Run, tmp_path: Path, overrides: list[str], note: str
) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.replace('"toys:Adder"', '"toys:Adder"\nsettings = { trouble = "" }'))
    words = [word for override in overrides for word in ("--set", override)]
    # What is asked for last is refused, so that nothing is trained.
    result = run("train", "r.toml", *words, "--set", "model.path=nowhere", "--out", "out")
    refused(result, "error: no model at 'nowhere'")
    assert note in " ".join(result.err.split())


@pytest.mark.parametrize("override", ["objective.name=dapo", "objective.name=grpo"])
def test_a_setting_that_no_plugin_has_or_that_was_just_given_is_still_refused(
    run: Run, tmp_path: Path, override: str
) -> None:
    refused(run("train", "r.toml", "--set", override, "--set", "objective.overlog=1"), "unknown key 'overlog'")
    assert not (tmp_path / "runs").exists()


def test_reasons_of_failures_are_grouped_with_an_example_in_text_and_json(run: Run) -> None:
    words = (*GOLD, "--limit", "3", "--set", "trouble=verifier")
    text = run(*words)
    assert text.code == 1
    assert "Adder: 3 failed episodes, which count nowhere, because:" in text.err
    assert re.search(r"  3 × VerifierError: undecided \(e\.g\. task \d+\+\d+\)", text.err)
    (reason,) = run(*words, "--json").data["environments"]["Adder"]["failures"]
    assert reason.keys() == {"error", "count", "example", "task"}
    assert (reason["error"], reason["count"], reason["example"]) == ("VerifierError", 3, "undecided")
    assert run(*GOLD, "--limit", "2").err.count("failed") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--vrsion",), ["No such option"]),
        ((*GOLD, "--limit", "0"), ["--limit", "1"]),
        ((*GOLD, "--limit", "1e3"), ["should be a valid integer"]),
        ((*GOLD, "--temperature", "-1"), ["--temperature"]),
        (("eval", "--policy", "gold"), ["Missing option '--env'"]),
        (
            (*GOLD, "--policy", "org/model"),
            ["hf download org/model --local-dir models/model"],
        ),
        ((*GOLD, "--policy", "."), ["no model at '.'"]),
        ((*GOLD, "--policy-set", "x=1"), ["'gold' has no settings"]),
        (("eval", "--env", "no_module:Env", "--policy", "gold"), ["no_module"]),
        ((*GOLD, "--policy", "builtin:tiny", "--context", "3"), ["--context"]),
        (("train", "missing.toml"), ["no recipe at missing.toml"]),
        (("train", "slow.toml", "--resume", "x"), ["give either a recipe or --resume FOLDER"]),
        (("train", "--resume", "r.toml"), ["no run in r.toml"]),
        (("train", "--resume", "x", "--set", "steps=3"), ["begin a new run; --set model.path=x makes it go on"]),
        (("train", "slow.toml", "--controls", "coin"), ["has no controls"]),
        (("report", "."), ["no run in .: it has no recipe.toml"]),
        (("check", "toys:Addr"), ["did you mean 'Adder'"]),
        (("show", ""), ["unknown environment ''"]),
    ],
)
def test_other_mistakes(run: Run, words: tuple[str, ...], said: list[str]) -> None:
    refused(run(*words), *said)


def test_the_version_is_told(run: Run) -> None:
    result = run("--version")
    assert result.code == 0
    assert re.fullmatch(r"envgym \d+\.\d+\.\d+\n", result.out)


def test_a_full_disk_is_told_with_the_way_to_go_on(tmp_path: Path) -> None:
    """Every write of more than some kilobytes fails, as on a disk that is full."""
    path = os.pathsep.join([str(Path(__file__).parents[1] / "plugins"), *sys.path])
    limited = "ulimit -f 0; trap '' XFSZ; exec \"$@\""
    program = "from envgym.cli import main; main()"
    done = subprocess.run(
        ["bash", "-c", limited, "-", sys.executable, "-c", program, "train", "slow.toml", "--out", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "could not be written" in done.stderr
    assert "make room, then" in done.stderr
    assert not (tmp_path / "out").exists()
