"""``envgym plan``: what the recipe says reaches the plan, and what it advises makes the recipe fit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envgym.cli import main

RECIPE = """
groups = 2
group_size = 4
[[mix]]
env = "math_problems-v1"
[model]
path = "builtin:tiny"
"""
BIG = ("--model-size", "7B", "--gpu", "h100", "--set", "model.context=4096")


@pytest.fixture
def plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """``plan(*arguments)``: exit code and both streams."""
    (tmp_path / "r.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["envgym", "plan", "r.toml", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out, told.err

    return run


def _found(plan: Callable[..., tuple[int, str, str]], *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plan("--json", *arguments)[1])
    return found


@pytest.mark.parametrize(
    ("setting", "part", "key"),
    [
        ("groups=8", "load", "episodes"),
        ("group_size=16", "load", "episodes"),
        ("epochs=2", "load", "passes"),
        ("sampling.concurrency=7", "load", "concurrency"),
        ("model.context=64", "load", "context"),
        ("model.dtype=bfloat16", "load", "width"),
        ("model.lora_rank=4", "memory", "optimizer"),
        ("optimizer.micro_batch_tokens=2000", "memory", "activations"),
        ("optimizer.gradient_checkpointing=full", "memory", "activations"),
        ("objective.name=ppo", "load", "critic"),
        ("engine=vllm", "load", "samples_elsewhere"),
        ('engine={name="in_process",memory=0.001}', "memory", "keys and values"),
        ("asynchronous={max_staleness=1}", "memory", "whole copies"),
        ('objective={name="grpo",beta=0.1}', "load", "reference"),
    ],
)
def test_a_setting_of_the_recipe_changes_the_plan(plan: Any, setting: str, part: str, key: str) -> None:
    more = ("--set", "reproducible=false")
    assert _found(plan, *more, "--set", setting)[part].get(key) != _found(plan, *more)[part].get(key)


def test_sandboxes_and_calls_of_a_judge_are_as_many_as_episodes_at_once(plan: Any) -> None:
    assert (_found(plan)["sandboxes"], _found(plan)["judge_calls"]) == (0, 0)
    settings = ("--set", "mix.0.env=code_sandbox-v1", "--set", "judge=http://127.0.0.1:1/v1#m")
    found = _found(plan, *settings)
    assert (found["sandboxes"], found["judge_calls"]) == (8, 8)


def test_options_change_the_plan(plan: Any) -> None:
    base = _found(plan, *BIG)
    assert base["parameters"] == 7_615_616_512
    assert _found(plan, *BIG, "--gpus", "8")["memory"]["weights"] == base["memory"]["weights"] / 8
    assert _found(plan, *BIG, "--tokens", "100")["load"]["tokens"] == 100
    assert _found(plan, *BIG, "--sampled", "7")["load"]["sampled"] == 7
    slower = _found(plan, *BIG[:2], "--gpu", "a100", *BIG[4:])
    assert slower["step_seconds"] > base["step_seconds"]


def test_a_small_model_fits_and_a_large_one_does_not(plan: Any) -> None:
    code, out, _ = plan()
    assert (code, out.splitlines()[-1]) == (0, "it fits")
    code, out, _ = plan(*BIG)
    assert code == 1
    assert "it does not fit: " in out
    assert "each of these is enough:" in out


def test_every_advice_for_a_recipe_makes_it_fit(plan: Any) -> None:
    """Followed word by word."""
    settings = ("--model-size", "0.5B", "--gpu", "rtx4090", "--set", "model.context=8192")
    found = _found(plan, *settings, "--set", "optimizer.micro_batch_tokens=30000")
    assert not found["fits"]
    assert found["changes"]
    for change in found["changes"]:
        words = change.split(" with ")  # several at once
        extra = [arg for word in words for arg in (
            ("--gpus", word.split()[0]) if word.endswith("devices") else ("--set", word.replace(" = ", "="))
        )]  # fmt: skip
        again = _found(plan, *settings, "--set", "optimizer.micro_batch_tokens=30000", *extra)
        assert again["fits"], change


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpu", "tpu"), "unknown device 'tpu'"),
        (("--model-size", "9B"), "unknown model size '9B'"),
        (("--set", "groupz=3"), "did you mean 'groups'"),
        (("--set", "model.path=nowhere"), "no model at 'nowhere'"),
        (("--set", "objective.name=grop"), "did you mean 'grpo'"),
    ],
)
def test_what_cannot_be_planned_says_why(plan: Any, arguments: tuple[str, ...], words: str) -> None:
    code, _, told = plan(*arguments)
    assert code == 2
    assert words in told
