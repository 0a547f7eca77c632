"""HumanEval and MBPP: every reference passes, and mutants of it are told apart, with the answers out of reach."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from envgym.env.services import Services
from envgym.records import Split, Task
from envgym.sandbox.interface import Backend, Limits
from envgym_environments.code_sandbox.boxes import Boxes
from envgym_environments.code_sandbox.sources import load_tasks
from envgym_environments.code_sandbox.suites import AssertTests, read_suite

pytestmark = pytest.mark.docker

SHARES = 4
"""Tests that divide the work, so that they can run side by side."""
TOLERANT = {"off by one": {"82", "85"}}
"""MBPP's tests of these compare within a tolerance of more than one, so they cannot tell."""
EMPTY = "def {f}(*a, **k):\n    pass"
MUTANTS = {
    "constant": "def {f}(*a, **k):\n    return 7",
    "exception": "def {f}(*a, **k):\n    raise ValueError('mutant')",
    "off by one": (
        "_original = {f}\n"
        "def {f}(*a, **k):\n"
        "    value = _original(*a, **k)\n"
        "    if isinstance(value, (int, float, complex)):\n"
        "        return not value if isinstance(value, bool) else value + 1\n"
        "    if isinstance(value, (str, list, tuple)):\n"
        "        return value[1:] if value else type(value)('x')\n"
        "    return 1 if value is None else None"
    ),
}


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point ``$ENVGYM_DATA`` at the public data sets, or skip where they are not."""
    named = os.environ.get("ENVGYM_DATA")
    beside = [p / "shared" / "data" for p in Path(__file__).resolve().parents]
    folder = next((p for p in ([Path(named)] if named else beside) if p.is_dir()), None)
    if folder is None:
        pytest.skip("the public data sets are not here; set ENVGYM_DATA to their folder")
    monkeypatch.setenv("ENVGYM_DATA", str(folder))


@pytest.fixture
async def boxes(usable_backend: Callable[[str], type[Backend]]) -> AsyncIterator[Boxes]:
    usable_backend("docker")
    limits = Limits(wall_seconds=120.0, total_seconds=1200.0)
    async with Services("docker") as services, Boxes(services, limits, 60.0, {}) as opened:
        yield opened


def share_of(source: str, splits: tuple[Split, ...], number: int, count: int) -> list[Task]:
    tasks = [task for split in splits for task in load_tasks(source, split, 2)]
    assert len(tasks) == count
    return tasks[number::SHARES]


async def passes(task: Task, boxes: Boxes, mutant: str = "") -> bool:
    suite = read_suite(task.reference)
    assert isinstance(suite, AssertTests)
    program = suite.solution + "\n" + mutant.replace("{f}", suite.entry_point)
    return all(result.passed for result in await suite.run("hidden", program, boxes))


@pytest.mark.parametrize("number", range(SHARES))
@pytest.mark.usefixtures("data")
async def test_humaneval_references_pass_and_mutants_fail(boxes: Boxes, number: int) -> None:
    tasks = share_of("humaneval", ("held_out",), number, 164)
    assert [t.id for t in tasks if not await passes(t, boxes)] == []
    assert [t.id for t in tasks if await passes(t, boxes, EMPTY)] == []
    for name, mutant in MUTANTS.items():
        assert [t.id for t in tasks if await passes(t, boxes, mutant)] == [], name


@pytest.mark.parametrize("number", range(SHARES))
@pytest.mark.usefixtures("data")
async def test_mbpp_references_pass_and_mutants_fail(boxes: Boxes, number: int) -> None:
    tasks = share_of("mbpp", ("train", "held_out"), number, 427)
    assert [t.id for t in tasks if not await passes(t, boxes)] == []
    for name, mutant in MUTANTS.items():
        told_apart = [t for t in tasks if t.id not in TOLERANT.get(name, ())]
        assert [t.id for t in told_apart if await passes(t, boxes, mutant)] == [], name
