"""The distribution that an author of plugins would copy: its metadata, its environment, its own tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from envgym import make
from envgym.env.chat_env import ChatEnv
from envgym.env.registration import environments

PLUGIN = Path(__file__).resolve().parents[2] / "examples" / "third_party_plugin"
PATH = "envgym_ledger.ledger:Ledger"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PLUGIN)


def test_its_entry_point_names_the_environment() -> None:
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (name, value), *others = project["entry-points"][environments.group].items()
    assert not others
    assert name == "ledger-v1"
    assert value == PATH
    assert issubclass(EntryPoint(name, value, environments.group).load(), ChatEnv)
    assert "envgym" in project["dependencies"]


def test_it_is_made_by_path_with_its_settings() -> None:
    env = make(PATH, split="held_out", people=5)
    observation, _ = env.reset(seed=0)
    assert [spec.name for spec in observation.tools] == ["balance", "transfer"]
    assert len(env.trajectory.task.reference["opening"]) == 5  # type: ignore[call-overload, index]
    env.close()


def test_its_own_tests_pass() -> None:
    path = os.pathsep.join([str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(PLUGIN)]
    done = subprocess.run(
        command, cwd=PLUGIN, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
