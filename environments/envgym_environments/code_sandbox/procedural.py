"""Tasks from problem families: arguments drawn, expected results worked out, tests made."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from envgym.records import Message, Split, Task
from envgym.tasks.procedural import stable_id
from envgym.verifiers.code_tests.tagged_json import encode
from envgym_environments.code_sandbox.behaviour import behaviour
from envgym_environments.code_sandbox.families import FAMILIES, CodeProblem
from envgym_environments.code_sandbox.suites import StdioTest, StdioTests, Suite, ValueTest, ValueTests

__all__ = ["SYSTEM", "make_task"]

SYSTEM = "Write a Python function. Test it, then submit it."


def make_task(
    rng: random.Random, split: Split, *, families: Sequence[str], steps: int, visible: int, hidden: int
) -> Task:
    """Draw a problem and its tests."""
    family = rng.choice(families)
    problem = FAMILIES[family](rng, steps)
    arguments = _draw_arguments(rng, problem, visible + hidden)
    suite = _stdio(problem, arguments, visible) if problem.whole_program else _values(problem, arguments, visible)
    return Task(
        id=f"{family}-{stable_id(problem.statement, repr(arguments))}",
        split=split,
        messages=(Message(role="system", content=SYSTEM), Message(role="user", content=problem.statement)),
        reference=suite.model_dump(mode="json"),
        difficulty=float(steps),
        problem=behaviour(problem.kind, problem.apply),
        metadata={"family": family},
    )


def _draw_arguments(rng: random.Random, problem: CodeProblem, count: int) -> list[Any]:
    """Draw different arguments, so that no hidden test repeats a visible one."""
    arguments: list[Any] = []
    while len(arguments) < count:
        argument = problem.draw(rng)
        if argument not in arguments:
            arguments.append(argument)
    return arguments


def _values(problem: CodeProblem, arguments: Sequence[Any], visible: int) -> Suite:
    tests = [ValueTest(arguments=[encode(a)], expected=encode(problem.apply(a))) for a in arguments]
    return ValueTests(
        entry_point=problem.entry_point, solution=problem.solution, visible=tests[:visible], hidden=tests[visible:]
    )


def _stdio(problem: CodeProblem, arguments: Sequence[Any], visible: int) -> Suite:
    tests = [StdioTest(stdin=f"{a}\n", stdout=f"{problem.apply(a)}\n") for a in arguments]
    return StdioTests(solution=problem.solution, visible=tests[:visible], hidden=tests[visible:])
