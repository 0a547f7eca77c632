"""Tasks from problem families: arguments drawn, expected results worked out, tests made."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pydantic
from pydantic import JsonValue

from envgym.data import Message, Split, Task
from envgym.tasks import stable_id
from envgym.verifiers.code.wire import encode
from envgym_environments.code_sandbox.families import FAMILIES, Problem

__all__ = ["ValueTest", "ValueTests", "make_task"]

SYSTEM = "Write a Python function. Test it, then submit it."


class ValueTest(pydantic.BaseModel):
    """One call and what it must return, both as tagged JSON."""

    arguments: list[JsonValue]
    expected: JsonValue


class ValueTests(pydantic.BaseModel):
    """The reference of a task whose tests are calls with expected results."""

    entry_point: str
    solution: str
    visible: list[ValueTest]
    hidden: list[ValueTest]
    tolerance: float = 0.0


def make_task(
    rng: random.Random, split: Split, *, families: Sequence[str], steps: int, visible: int, hidden: int
) -> Task:
    """Draw a problem and its tests."""
    family = rng.choice(families)
    problem = FAMILIES[family](rng, steps)
    tests = _draw_tests(rng, problem, visible + hidden)
    reference = ValueTests(
        entry_point=problem.entry_point,
        solution=problem.solution,
        visible=tests[:visible],
        hidden=tests[visible:],
    )
    return Task(
        id=f"{family}-{stable_id(problem.statement, repr(tests))}",
        split=split,
        messages=(Message(role="system", content=SYSTEM), Message(role="user", content=problem.statement)),
        reference=reference.model_dump(mode="json"),
        difficulty=float(steps),
        metadata={"family": family},
    )


def _draw_tests(rng: random.Random, problem: Problem, count: int) -> list[ValueTest]:
    """Different arguments, so that no hidden test repeats a visible one."""
    arguments: list[Any] = []
    while len(arguments) < count:
        argument = problem.draw(rng)
        if argument not in arguments:
            arguments.append(argument)
    return [ValueTest(arguments=[encode(a)], expected=encode(problem.apply(a))) for a in arguments]
