"""A package from outside brings a plugin of every kind: each keeps its contract, and recipes use it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from envgym.chat.tool_formats import ToolFormat, tool_formats
from envgym.cli import main
from envgym.env.registration import environments
from envgym.errors import UserError
from envgym.plugins.registry import Registry
from envgym.policies.interface import policies
from envgym.records import Message, ToolCall
from envgym.rollout.cluster import clusters
from envgym.runs.folder import RunFolder
from envgym.runs.stage import stages
from envgym.sandbox.selection import sandboxes, select_backend
from envgym.testing import (
    ClusterContract,
    EnvironmentContract,
    IsolatedSandboxContract,
    PolicyContract,
    Script,
    play,
)
from envgym.testing.tool_formats import ToolFormatContract
from envgym_trainers.engine.interface import engines
from envgym_trainers.models.load import ModelConfig, load_model
from envgym_trainers.objectives import objectives
from envgym_trainers.testing import EngineContract, ObjectiveContract

pytestmark = pytest.mark.usefixtures("stranger")

REGISTRIES: dict[str, tuple[Registry[Any], str]] = {
    "environments": (environments, "letters-v1"),
    "sandboxes": (sandboxes, "counted"),
    "policies": (policies, "guesser"),
    "tool_formats": (tool_formats, "brackets"),
    "engines": (engines, "brief"),
    "objectives": (objectives, "centred"),
    "clusters": (clusters, "beside"),
    "stages": (stages, "measure"),
}
RECIPE = """
steps = 1
groups = 1
group_size = 2
sandbox = "counted"

[[mix]]
env = "letters-v1"
settings = { letters = "ab" }

[model]
path = "builtin:tiny"
tool_format = "brackets"

[engine]
name = "brief"
longest = 3

[cluster]
name = "beside"
workers = 1

[sampling]
max_tokens = 8

[objective]
name = "centred"
scale = 3.0

[evaluate]
tasks = 2
"""


class TestLetters(EnvironmentContract):
    env = "letters-v1"
    sandbox = "unsafe_local"
    episodes = 1


class TestCounted(IsolatedSandboxContract):
    backend = "counted"


class TestGuesser(PolicyContract):
    policy = "guesser"


class TestBrackets(ToolFormatContract):
    def tool_format(self) -> ToolFormat:
        return tool_formats.make("brackets")


class TestBrief(EngineContract):
    engine = "brief"


class TestCentred(ObjectiveContract):
    objective = "centred"


class TestBeside(ClusterContract):
    cluster = "beside"
    env = "letters-v1"


@pytest.mark.parametrize("kind", REGISTRIES)
def test_it_is_found_by_name_and_by_path_and_listed(kind: str, command: Any) -> None:
    registry, name = REGISTRIES[kind]
    spec = registry.find(name)
    assert spec.distribution == "envgym-stranger"
    assert registry.load(spec.entry_point) is registry.load(name)
    listed = command("list", "--kind", kind, "--json")
    (row,) = (row for row in json.loads(listed.stdout) if row["id"] == name)
    assert (row["distribution"], row["entry_point"], row["problem"]) == ("envgym-stranger", spec.entry_point, "")


def test_gymnasium_knows_the_environment() -> None:
    made = gymnasium.make("envgym/letters-v1", letters="xy")
    assert made.reset(seed=0)[1]["task_id"].strip("xy") == ""
    made.close()


def test_its_policy_plays_where_the_command_line_names_one(command: Any) -> None:
    arguments = ("eval", "--env", "letters-v1", "--limit", "20", "--sandbox", "unsafe_local", "--json")
    found = [
        command(*arguments, "--policy", policy, *settings)
        for policy, settings in (
            ("guesser", ("--policy-set", "highest=0")),
            ("envgym_stranger.guesser:Guesser", ()),
            ("gold", ()),
        )
    ]
    assert [done.returncode for done in found] == [0, 0, 0], found[-1].stderr
    none, some, every = (json.loads(d.stdout)["environments"]["letters"]["reward"]["mean"] for d in found)
    assert none == 0 < some < every == 1


def test_its_sandbox_runs_the_tool_and_auto_asks_for_its_rank() -> None:
    kind = sandboxes.load("counted")
    if reason := kind.unavailable():
        pytest.skip(reason)
    assert type(select_backend()) is kind
    env = environments.make("letters-v1")  # services of its own, so that "auto" chooses
    call = ToolCall(name="python", arguments={"code": "print(6 * 7)"}, id="call_0")
    played = play(env, Script(Message(role="assistant", content="", tool_calls=(call,))))
    assert played.messages[2].content == "42"
    assert kind.opened == 1  # type: ignore[attr-defined]
    env.close()


def test_its_tool_format_reads_what_it_writes() -> None:
    made = tool_formats.make("brackets")
    call = ToolCall(name="python", arguments={"code": "print(']]')"}, id="call_0")
    message = Message(role="assistant", content="so", tool_calls=(call,))
    assert made.parse(made.render(message)) == message


def test_a_recipe_trains_with_all_of_them(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: the trainer takes seconds to import in another."""
    (site / "recipe.toml").write_text(RECIPE)
    monkeypatch.chdir(site)
    monkeypatch.setattr(sys, "argv", ["envgym", "train", "recipe.toml", "--out", "run"])
    cluster: Any = clusters.load("beside")
    earlier = cluster.opened
    with pytest.raises(SystemExit, match="0"):
        main()
    assert capsys.readouterr().out.startswith("letters, ")
    (row,) = RunFolder.existing(site / "run").metrics()
    assert row["centred_scale"] == pytest.approx(3.0)
    played = RunFolder.existing(site / "run").trajectories(1)
    assert {t.env for t in played} == {"letters"}
    tokens = [turn.tokens for t in played for turn in t.turns if turn.tokens]
    assert max(len(t.completion_ids) for t in tokens) == 3
    assert cluster.opened == earlier + 1
    model = load_model(ModelConfig(path="builtin:tiny", tool_format="brackets"))
    assert type(model.tool_format) is tool_formats.load("brackets")
    with pytest.raises(UserError, match="did you mean 'brackets'"):
        load_model(ModelConfig(path="builtin:tiny", tool_format="bracket"))


def test_a_recipe_runs_its_stage(command: Any, site: Path) -> None:
    (site / "measure.toml").write_text(
        'stage = "measure"\npolicy = "guesser"\ntasks = 3\nsandbox = "unsafe_local"\n[[mix]]\nenv = "letters-v1"\n'
    )
    done = command("train", "measure.toml", "--out", "measured", "--set", "tasks=5")
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[1].split()
    assert (row[:2], row[-2:]) == (["letters", "-"], ["-", "5"])
    assert (site / "measured" / "report.html").is_file()
    wrong = command("train", "measure.toml", "--set", "taks=5")
    assert (wrong.returncode, "did you mean 'tasks'" in wrong.stderr) == (2, True)
