"""A plugin that cannot be used is named and explained, and keeps nothing else from working."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from envgym.env.registration import environments
from envgym.errors import PluginError
from envgym.policies.interface import policies
from envgym.runs.stage import stages
from envgym.sandbox.selection import sandboxes, select_backend

GOOD = """
from envgym import ChatEnv, Message, Score, Task
class Good(ChatEnv):
    def tasks(self, split):
        return [Task(id=split, split=split, messages=(Message(role="user", content="say yes"),))]
    def score(self, trajectory):
        right = float(trajectory.final_text == "yes")
        return Score(value=right, accuracy=right)
    def gold(self, task):
        return [Message(role="assistant", content="yes")]
"""
MODULES = {
    "good.py": GOOD,
    "newer.py": "from good import Good\nclass Newer(Good):\n    contract = 99\n",
    "older.py": "from good import Good\nclass Older(Good):\n    contract = 0\n",
    "renamed.py": "from good import Good\nclass Renamed(Good):\n    def score(self, messages, answer): ...\n",
    "raises.py": "print('noise')\nraise RuntimeError('no coffee')\n",
    "leaves.py": "import sys\nsys.exit(3)\n",
    "typo.py": "def f(:\n",
    "needy.py": "import no_such_package.part\n",
    "lazy.py": "def __getattr__(name):\n    raise OSError('asleep')\n",
    "plain.py": "class Plain:\n    pass\n",
    "sandy.py": "raise RuntimeError('no sand')\n",
    "policed.py": "from envgym import Policy\nclass Policed(Policy):\n    contract = 99\n"
    "    def open(self, *given): ...\n",
    "staged.py": "from envgym.runs.stage import Stage\nclass Staged(Stage):\n    async def run(self): ...\n",
}
EXPLAINED = {
    "newer-v1": r"newer:Newer \(broken\) is written for version 99 of .*: upgrade envgym",
    "older-v1": r"older:Older \(broken\) is written for version 0 of .*: upgrade the plugin",
    "renamed-v1": r"renamed:Renamed \(broken\) does not fit .*score\(self, messages, answer\) cannot be called as "
    r"score\(self, trajectory",
    "raises-v1": r"'raises-v1' \(raises:Raises of broken\) cannot be imported: it raised RuntimeError: no coffee",
    "leaves-v1": r"'leaves-v1' \(leaves:Leaves of broken\) cannot be imported: it raised SystemExit: 3",
    "typo-v1": r"'typo-v1' \(typo:Typo of broken\) cannot be imported: it raised SyntaxError: .*typo.py, line 1",
    "needy-v1": r"'needy-v1' \(needy:Needy of broken\) needs the module 'no_such_package', .*"
    r"pip install 'broken\[much\]'",
    "lazy-v1": r"'lazy-v1' \(lazy:Lazy of broken\) cannot be imported: it raised OSError: asleep",
    "odd-v1": r"'odd-v1' of broken reads 'odd module:Odd\(\)'; an entry point must read 'package.module:Class'",
    "plain-v1": r"plain:Plain \(broken\) is not an environment: it must subclass envgym.env.chat_env:ChatEnv",
    "twin-v1": r"environment 'twin-v1' is offered twice: by .*broken \(plain:Plain\).*; rename or uninstall one",
}
EXTRAS = {"needy-v1": " [much]"}


@pytest.fixture(scope="module", autouse=True)
def _broken(install: Any) -> None:
    points = {name: f"{name[:-3]}:{name[:-3].title()}{EXTRAS.get(name, '')}" for name in EXPLAINED}
    points |= {"good-v1": "good:Good", "twin-v1": "plain:Plain", "odd-v1": "odd module:Odd()"}
    points |= {"no version!": "good:Good"}  # an id that Gymnasium refuses
    install("twin", {"envgym.environments": {"twin-v1": "good:Good"}})
    install(
        "broken",
        {
            "envgym.environments": points,
            "envgym.sandboxes": {"sandy": "sandy:Sandy"},
            "envgym.policies": {"policed": "policed:Policed"},
            "envgym.stages": {"staged": "staged:Staged"},
        },
        MODULES,
        requires=("unheard-of>=2; extra == 'much'", "numpy; extra == 'much'"),
    )


@pytest.mark.parametrize("name", EXPLAINED)
def test_what_is_wrong_is_explained_with_distribution_and_entry_point(name: str) -> None:
    with pytest.raises(PluginError, match=EXPLAINED[name]):
        environments.load(name)


def test_listing_shows_everything_and_what_metadata_tells_of_problems(command: Any) -> None:
    rows = {row["id"]: row["problem"] for row in json.loads(command("list", "--json").stdout)}
    assert rows.keys() >= {*EXPLAINED, "good-v1", "math_problems-v1"}
    assert {name for name, problem in rows.items() if problem} == {"twin-v1", "needy-v1", "odd-v1"}
    assert rows["needy-v1"] == "needs unheard-of: pip install 'broken[much]'"
    text = command("list")
    assert text.returncode == 0
    assert re.search(r"^twin-v1 .*\n +problem: environment 'twin-v1' is offered twice", text.stdout, re.MULTILINE)


def test_checking_loads_each_plugin_and_explains_all_that_fail(command: Any) -> None:
    done = command("list", "--check", "--json")
    problems = {row["id"]: row["problem"] for row in json.loads(done.stdout)}
    assert done.returncode == 1
    assert "noise" in done.stderr
    assert {name for name, problem in problems.items() if problem} == EXPLAINED.keys()
    for name, words in EXPLAINED.items():
        assert re.search(words, problems[name]), problems[name]


@pytest.mark.parametrize("name", ["newer-v1", "leaves-v1", "twin-v1"])
def test_a_command_that_asks_for_one_says_why_not(command: Any, name: str) -> None:
    done = command("show", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(f"error: .*{EXPLAINED[name]}.*\n", done.stderr)


@pytest.mark.parametrize("name", ["good", "no version!", "math_problems"])
def test_every_other_plugin_still_works(command: Any, name: str) -> None:
    done = command("rollout", name, "--policy", "gold")
    assert done.returncode == 0, done.stderr
    assert "reward: 1" in done.stdout


def test_a_broken_backend_is_passed_over(command: Any) -> None:
    with pytest.raises(PluginError, match=r"'sandy' \(sandy:Sandy of broken\) .*RuntimeError: no sand"):
        sandboxes.load("sandy")
    assert select_backend("auto").isolated
    rows = json.loads(command("sandbox", "doctor", "--json").stdout)
    assert "no sand" in rows["sandy"]["reason"]
    assert rows["unsafe_local"]["works"]
    assert "unsafe_local: 0 removed" in command("sandbox", "clean").stdout


def test_every_kind_is_checked_alike() -> None:
    with pytest.raises(PluginError, match=r"policed:Policed \(broken\) is written for version 99 of the policy"):
        policies.load("policed")
    with pytest.raises(PluginError, match=r"staged:Staged \(broken\) does not fit the stage contract: run\("):
        stages.load("staged")
