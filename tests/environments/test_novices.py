"""Beginners lose at least half of the tasks of every environment, and none of their episodes fails."""

from __future__ import annotations

import pytest

from envgym.env.registration import environments
from envgym.env.run_sync import run_sync
from envgym.env.services import Services
from envgym.policies.selection import make_player
from envgym.rollout.episode import rollout
from envgym_environments.code_sandbox.novice import without_last_operation

_NAMES = ("math_problems", "code_sandbox", "search_qa", "refusal_safety", "proof_checker")


@pytest.mark.parametrize("name", _NAMES)
def test_a_novice_plays_to_the_end_and_loses_half_or_more(name: str) -> None:
    services = Services()
    env = environments.make(f"{name}-v1", {"size": 20}, services=services)
    novice = make_player("novice")
    played = [
        run_sync(rollout(env, novice, task, name=name, seed=i))
        for i, task in enumerate(env.task_list("train")[:8])
    ]
    env.close()
    run_sync(services.close())
    assert [t.outcome.reason for t in played if t.failed] == []
    assert sum(t.score.accuracy for t in played if t.score) <= 4


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        ("def f(x):\n    return sum([i + 2 for i in x])", "def f(x):\n    return [i + 2 for i in x]"),
        ("def f(x):\n    return [i * 3 for i in sorted(x)]", "def f(x):\n    return sorted(x)"),
        ("def f(x):\n    return x - 5 if x > 16 else x % 10", "def f(x):\n    return x % 10"),
        ("def f(x):\n    return (x + 'ab')[::-1]", "def f(x):\n    return x + 'ab'"),
        ("def f(x):\n    return x", "def f(x):\n    return None"),
        ("x = int(input())\nprint(x + 2)", "x = int(input())\nprint(x)"),
    ],
)
def test_the_last_operation_is_what_is_forgotten(solution: str, expected: str) -> None:
    assert without_last_operation(solution) == expected
