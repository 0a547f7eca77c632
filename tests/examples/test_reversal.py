"""The environment of the README's size keeps the contract."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envgym.env.registration import environments
from envgym.testing import EnvironmentContract, Script, play

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))
    sys.modules.pop("reversal", None)


class TestReversal(EnvironmentContract):
    env = "reversal:Reversal"


def test_it_is_complete_in_25_lines() -> None:
    assert len((EXAMPLES / "reversal.py").read_text(encoding="utf-8").splitlines()) <= 25


def test_a_wrong_word_earns_nothing() -> None:
    env = environments.make("reversal:Reversal")
    task = env.task_list("train")[0]
    assert play(env, Script(*env.gold(task)), task).reward == 1
    assert play(env, Script(*env.gold(env.task_list("train")[1])), task).reward == 0
    env.close()
