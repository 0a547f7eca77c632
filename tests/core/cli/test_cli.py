"""The command line: data to standard output, mistakes told in a line and exit code 2, and no traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Run

from envgym.cli import app
from envgym.config import Section
from envgym.env.registration import list_envs
from envgym.errors import UserError
from envgym.records import Trajectory, from_json
from envgym.rollout.collector import TooManyFailures
from envgym.runs.folder import RunFolder

SUMS = "toys:Adder"


def hear_interrupts() -> None:
    """A shell's background job, as the tests may be, ignores them, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def process(*arguments: str) -> subprocess.Popen[str]:
    """The command in a process of its own, as from a pipe."""
    program = "from envgym.cli import main; main()"
    path = os.pathsep.join([str(Path(__file__).parents[1] / "plugins"), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=hear_interrupts,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_list(run: Run) -> None:
    rows = run("list", "--json").data
    assert [row["id"] for row in rows] == list_envs()
    assert all(row.keys() == {"id", "entry_point", "distribution", "extras", "problem"} for row in rows)
    lines = run("list").out.splitlines()
    assert [line.split()[0] for line in lines] == list_envs()


def test_show(run: Run) -> None:
    text = run("show", SUMS)
    assert text.code == 0
    for words in (
        "Add two numbers.",
        "numbers = 30  addends are below this",
        "max_turns = 6  actions before",
        "  add: Add.\n",
        "rewards: 0 to 1",
        "needs a sandbox: no",
    ):
        assert words in text.out
    assert "second paragraph" not in text.out
    data = run("show", "math_problems", "--json").data
    assert data.keys() == {"id", "about", "settings", "tools", "reward_range", "needs_sandbox", "roles"}
    assert data["id"] == "math_problems-v1"
    assert data["settings"]["max_turns"]["default"] == 6
    assert data["tools"]["calculator"]


def test_rollout(run: Run) -> None:
    text = run("rollout", SUMS, "--index", "1", "--set", "numbers=5")
    assert text.code == 0
    assert re.fullmatch(
        r"\[user\] (\d) \+ (\d)\?\n\[assistant\] \d\n\noutcome: completed \nreward: 1  \(right 1\)\n", text.out
    )
    played = from_json(Trajectory, run("rollout", SUMS, "--split", "train", "--json", "--seed", "4").out)
    assert (played.env, played.task.split, played.seed, played.reward) == ("Adder", "train", 4, 1.0)
    assert run("rollout", SUMS, "--policy", "random", "--json").code == 0


def test_roles_are_shown_and_nested_episodes_printed(run: Run) -> None:
    assert "\nroles: helper, other\n" in run("show", "company:Manager").out
    text = run("rollout", "company:Manager")
    assert (text.code, text.err) == (0, "")
    assert "\n-- helper in Helper\n[user] hi\n[assistant] hi\n\noutcome: completed \nreward: 1" in text.out


def test_a_failed_rollout_is_printed_and_exits_with_1(run: Run) -> None:
    failed = run("rollout", SUMS, "--set", "trouble=sandbox", "--json")
    assert failed.code == 1
    assert failed.data["outcome"] == {"kind": "failed", "reason": "SandboxError: gone"}
    assert "Traceback" not in failed.err


def test_eval(run: Run) -> None:
    result = run(
        "eval", "--env", f"{SUMS},math_problems", "--policy", "gold", "--limit", "4", "--samples", "2", "--json"
    )
    assert result.code == 0
    assert result.data.keys() == {"policy", "split", "seed", "temperature", "limits", "environments"}
    sums = result.data["environments"]["Adder"]
    assert result.data["environments"].keys() == {"Adder", "math_problems"}
    assert sums["reward"].keys() == sums["accuracy"].keys() == {"mean", "low", "high", "n"}
    assert (sums["reward"]["mean"], sums["reward"]["n"]) == (1.0, 4)
    assert (sums["episodes"], sums["failed_episodes"], sums["turns_mean"]) == (8, 0, 1.0)
    assert sums["sampled_tokens"] == 0
    text = run("eval", "--env", SUMS, "--policy", "empty", "--limit", "2")
    assert text.out.splitlines() == [
        "1 episode per problem",
        "Adder:",
        "  reward 0.000 [0.000, 0.842]",
        "  accuracy 0.000 [0.000, 0.842]",
        "  n 2  turns 1.0",
        "  right 0.000 [0.000, 0.842]  n 2",
    ]
    assert "evaluate 2/2 | Adder 0.00 | ETA 0:00" in text.err


@pytest.mark.parametrize("policy", ["gold", "empty"])
def test_eval_tells_no_temperature_of_a_policy_that_has_none(run: Run, policy: str) -> None:
    arguments = ("eval", "--env", SUMS, "--policy", policy, "--limit", "1", "--temperature", "0.5")
    assert run(*arguments, "--json").data["temperature"] is None
    assert "temperature" not in run(*arguments).out


def test_eval_counts_distinct_problems_in_its_progress(run: Run) -> None:
    result = run("eval", "--env", SUMS, "--policy", "gold", "--set", "numbers=4", "--set", "size=50", "--json")
    assert result.data["environments"]["Adder"]["episodes"] <= 16
    done, total = re.findall(r"evaluate (\d+)/(\d+)", result.err)[-1]
    assert done == total


def test_eval_without_a_score_exits_with_1(run: Run) -> None:
    result = run("eval", "--env", SUMS, "--policy", "gold", "--limit", "2", "--set", "trouble=sandbox", "--json")
    assert result.code == 1
    assert result.data["environments"]["Adder"]["reward"] == {"mean": None, "low": None, "high": None, "n": 0}
    assert result.data["environments"]["Adder"]["failed_episodes"] == 2
    assert "evaluate 2/2 | Adder - (100% failed: SandboxError) | ETA" in result.err
    too_many = run("eval", "--env", SUMS, "--policy", "gold", "--limit", "16", "--set", "trouble=sandbox")
    assert too_many.code == 1
    assert too_many.out == ""
    assert re.search(r"^error: 16 of \d+ episodes failed", too_many.err, re.MULTILINE)


EVAL = ("eval", "--env", SUMS, "--limit", "1", "--policy")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "math_problem"), "unknown environment 'math_problem'; did you mean 'math_problems-v1'"),
        (("show", "toys:Addr"), "did you mean 'Adder'"),
        (("rollout", "maths"), "unknown environment 'maths'"),
        (("rollout", SUMS, "--split", "test"), "unknown split 'test'; allowed: held_out, train"),
        (("rollout", SUMS, "--index", "10000"), "--index 10000: Adder has 10000 held_out tasks"),
        (("rollout", SUMS, "--policy", "golden"), "unknown policy 'golden'; did you mean 'gold'"),
        (("rollout", SUMS, "--policy", "~no such user"), "unknown policy '~no such user'"),
        (("rollout", SUMS, "--policy", "x" * 5000), "unknown policy 'xxx"),
        (("rollout", SUMS, "--policy", "http://"), "a server's address reads http://HOST:PORT/v1"),
        (
            ("rollout", SUMS, "--sandbox", "dokcer"),
            "unknown sandbox 'dokcer'; did you mean 'docker'? allowed: auto,",
        ),
        (("rollout", SUMS, "--set", "numbrs=3"), "unknown key 'numbrs'; did you mean 'numbers'"),
        (("rollout", SUMS, "--set", "numbers=many"), "numbers: Input should be a valid integer"),
        (("rollout", SUMS, "--set", "numbers"), "override 'numbers' must read key=value"),
        (("rollout", SUMS, "--set", "split=train"), "split is not a setting"),
        (("rollout", SUMS, "--set", "a.b=1"), "unknown key 'a'"),
        (("rollout", SUMS, "--set", "empty=true"), "Adder has no held_out task"),
        (("rollout", SUMS, "--set", "trouble=user"), "set it right"),
        (("rollout", "math_problems", "--set", "source=no.jsonl"), "no data file 'no.jsonl'"),
        (
            (*EVAL, "no/such/folder"),
            "unknown policy 'no/such/folder'; allowed: builtin:smollm2, builtin:tiny, empty",
        ),
        ((*EVAL, "gold", "--split", "x"), "unknown split 'x'"),
        ((*EVAL, "gold", "--sandbox", "x"), "unknown sandbox 'x'"),
        ((*EVAL, "gold", "--set", "trouble=user"), "set it right"),
        ((*EVAL, "gold", "--env", SUMS), "--env must name environments, each of them once; it names Adder, Adder"),
        (
            ("eval", "--env", ",", "--policy", "gold"),
            "--env must name environments, each of them once; it names none",
        ),
        (("eval", "--env", "maths", "--policy", "gold"), "unknown environment 'maths'"),
        (("train",), "give either a recipe or --resume FOLDER"),
        (("train", "no.toml"), "no recipe at no.toml; the shipped ones are in recipes/"),
        (("train", "."), "not a readable TOML file"),
        (("train", "--resume", "nowhere"), "no run in nowhere: it has no recipe.toml"),
        (("train", "--resume", "nowhere", "--set", "a=1"), "--set, --cluster and --out do not apply"),
        (("report", "nowhere"), "no run in nowhere: it has no recipe.toml"),
    ],
)
def test_a_mistake_is_told_in_one_line(run: Run, arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert result.code == 2
    assert result.out == ""
    assert len(errors) == 1, result.err
    assert words in errors[0]
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("recipe", "override", "words"),
    [
        ("stage = 'rll'", "", "unknown stage 'rll'; did you mean 'rl'? allowed: rl, sft"),
        ("", "", "mix: is missing"),
        (
            "[[mix]]\nenv = 'toys:Adder'\n[optimiser]\nx = 1",
            "",
            "unknown key 'optimiser'; did you mean 'optimizer'",
        ),
        ("[[mix]]\nenv = 'toys:Adder'", "mix.0.wait=1", "unknown key 'mix.0.wait'; did you mean 'weight'"),
        ("[[mix]]\nenv = 'toys:Adder'", "stage=sfd", "unknown stage 'sfd'"),
        ("[[mix]]\nenv = 'toys:Adder'", "stage.x=1", "r.toml: stage: must be one of rl, sft (got {'x': 1})"),
        ("a = ", "", "not a readable TOML file"),
    ],
)
def test_a_wrong_recipe_is_told_before_anything_is_made(
    run: Run, tmp_path: Path, recipe: str, override: str, words: str
) -> None:
    (tmp_path / "r.toml").write_text(recipe)
    result = run("train", "r.toml", *(["--set", override] if override else []), "--out", "run")
    assert result.code == 2
    assert words in result.err
    assert result.out == ""
    assert not (tmp_path / "run").exists()


def test_a_usage_error_teaches(run: Run) -> None:
    for arguments in (("lsit",), ("rollout",), ("eval",), ("rollout", SUMS, "--index", "-1"), ("list", "--jsn")):
        result = run(*arguments)
        assert result.code == 2
        assert result.out == ""
        assert "Usage: envgym" in result.err
        assert "Traceback" not in result.err


def test_report(run: Run, tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "one", Section(), seed=0)
    result = run("report", "one")
    assert (result.code, result.out, result.err) == (0, "one/report.html\n", "")
    assert (tmp_path / "one" / "report.html").is_file()


@pytest.mark.parametrize(
    "command", ["", *(c.callback.__name__.removesuffix("_command") for c in app.registered_commands)]
)
def test_help_says_what_a_command_does_and_what_each_option_means(run: Run, command: str) -> None:
    result = run(*([command] if command else []), "--help")
    assert result.code == 0
    assert result.err == ""
    assert result.out.startswith("Usage: envgym")
    explained = re.sub(r"\s+", " ", result.out)
    for flag in re.findall(r"--[a-z-]+", result.out.partition("Options:")[2]):
        assert re.search(rf"{flag}\b[^-]* [a-zA-Z]", explained), flag


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (UserError("wrong"), 2, ["error: wrong"]),
        (ExceptionGroup("tasks", [UserError("wrong"), UserError("wrong")]), 2, ["error: wrong"]),
        (
            ExceptionGroup("tasks", [ExceptionGroup("inner", [UserError("a")]), UserError("b")]),
            2,
            ["error: a", "error: b"],
        ),
        (ExceptionGroup("tasks", [TooManyFailures("many")]), 1, ["error: many"]),
        (
            ExceptionGroup("tasks", [TooManyFailures("many"), UserError("wrong")]),
            2,
            ["error: wrong", "error: many"],
        ),
    ],
)
def test_errors_of_tasks_are_told_like_any_other(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, lines: list[str]
) -> None:
    """What an ``asyncio.TaskGroup`` raises is a group, nested or not."""

    def fail(**_: str) -> None:
        raise error

    monkeypatch.setattr("envgym.cli.app", fail)
    result = run()
    assert (result.code, result.err.splitlines()) == (code, lines)


def test_a_bug_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: str) -> None:
        raise ExceptionGroup("tasks", [UserError("wrong"), ZeroDivisionError("bug")])

    monkeypatch.setattr("envgym.cli.app", fail)
    result = run()
    assert result.code == 1
    assert "ZeroDivisionError: bug" in result.err
    assert "Traceback" in result.err


def test_in_a_pipe_there_is_data_alone_and_no_colour() -> None:
    with process("eval", "--env", SUMS, "--policy", "gold", "--limit", "3", "--json") as running:
        out, err = running.communicate(timeout=120)
    assert running.returncode == 0
    assert json.loads(out)["environments"]["Adder"]["reward"]["mean"] == 1.0
    assert "evaluate 3/3" in err
    assert "\x1b" not in out + err


def test_a_mistake_in_a_process_of_its_own() -> None:
    with process("show", "nothing") as running:
        out, err = running.communicate(timeout=120)
    assert (running.returncode, out) == (2, "")
    assert err.count("\n") == 1


def test_interrupting_ends_with_130_and_no_traceback() -> None:
    arguments = ("eval", "--env", SUMS, "--policy", "gold", "--limit", "1", "--set", "trouble=say_and_hang")
    with process(*arguments) as running:
        assert running.stderr is not None
        assert running.stderr.readline() == "begun\n"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("rollout", SUMS, "--policy", "ftp://me:hunter2@host/v1"),
        ("rollout", SUMS, "--policy", "htpp//host/v1?api_key=hunter2"),
        ("rollout", SUMS, "--set", "api_key=hunter2"),
        ("train", "redis://:hunter2@host/recipe.toml"),
        ("rollout", SUMS, "--policy", f"{'x' * 180}my-hunter2-key{'x' * 99}"),
    ],
)
def test_no_message_shows_a_key(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.setenv("ACME_TOKEN", "my-hunter2-key")
    result = run(*arguments)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert "hunter" not in result.out + result.err
