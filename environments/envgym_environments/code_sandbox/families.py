"""Procedural programming problems: a chain of steps in words, its expression, and its tests.

Each step is written twice, as Python text for the reference solution and as a function for the expected results;
the gold policy's score proves that the two agree.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["FAMILIES", "CodeProblem"]

WORDS = ("ab", "cat", "dog", "sun", "red", "tea", "fox", "map", "ice", "owl", "key", "zip")
NAMES = ("f", "g", "h", "run", "calc", "solve", "work", "go")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeProblem:
    """A function to write."""

    statement: str
    entry_point: str
    solution: str
    kind: str
    """What it takes: number, string or list."""
    apply: Callable[[Any], Any]
    draw: Callable[[random.Random], Any]
    """Draws one argument of the program."""
    whole_program: bool = False
    """If true, the program reads its argument and prints the result; otherwise it defines a function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    phrase: str
    code: str
    """Python expression of ``{v}``, or of ``{e}`` where no parentheses are needed."""
    apply: Callable[[Any], Any]
    last: bool = False
    """If true, no step can follow, because the result has another type."""


_Draw = Callable[[random.Random], _Step]


def _number_step(rng: random.Random) -> _Step:
    n = rng.randint(2, 20)
    match rng.randrange(4):
        case 0:
            return _Step(phrase=f"add {n}", code=f"{{v}} + {n}", apply=lambda v: v + n)
        case 1:
            return _Step(phrase=f"subtract {n}", code=f"{{v}} - {n}", apply=lambda v: v - n)
        case 2:
            return _Step(phrase=f"multiply by {n}", code=f"{{v}} * {n}", apply=lambda v: v * n)
        case _:
            return _Step(phrase=f"take modulo {n}", code=f"{{v}} % {n}", apply=lambda v: v % n)


def _string_step(rng: random.Random) -> _Step:
    n, word = rng.randint(2, 5), rng.choice(WORDS)
    match rng.randrange(6):
        case 0:
            return _Step(phrase=f"append '{word}'", code=f"{{v}} + '{word}'", apply=lambda v: v + word)
        case 1:
            return _Step(phrase=f"prepend '{word}'", code=f"'{word}' + {{v}}", apply=lambda v: word + v)
        case 2:
            return _Step(phrase=f"repeat {n} times", code=f"{{v}} * {n}", apply=lambda v: v * n)
        case 3:
            return _Step(phrase=f"drop the first {n}", code=f"{{v}}[{n}:]", apply=lambda v: v[n:])
        case 4:
            return _Step(phrase=f"keep the first {n}", code=f"{{v}}[:{n}]", apply=lambda v: v[:n])
        case _:
            return _Step(phrase="reverse it", code="{v}[::-1]", apply=lambda v: v[::-1])


def _list_step(rng: random.Random) -> _Step:
    n = rng.randint(2, 20)
    match rng.randrange(6):
        case 0:
            return _Step(
                phrase=f"add {n} to each", code=f"[i + {n} for i in {{e}}]", apply=lambda v: [i + n for i in v]
            )
        case 1:
            return _Step(
                phrase=f"multiply each by {n}",
                code=f"[i * {n} for i in {{e}}]",
                apply=lambda v: [i * n for i in v],
            )
        case 2:
            return _Step(
                phrase=f"keep those above {n}",
                code=f"[i for i in {{e}} if i > {n}]",
                apply=lambda v: [i for i in v if i > n],
            )
        case 3:
            return _Step(phrase=f"append {n}", code=f"{{v}} + [{n}]", apply=lambda v: [*v, n])
        case 4:
            return _Step(phrase="sort it", code="sorted({e})", apply=sorted)
        case _:
            return _Step(phrase="take the sum", code="sum({e})", apply=sum, last=True)


def _chain(
    rng: random.Random, draw: _Draw, kind: str, steps: int, argument: Callable[[random.Random], Any]
) -> CodeProblem:
    chosen: list[_Step] = []
    while len(chosen) < steps and not (chosen and chosen[-1].last):
        chosen.append(draw(rng))
    name = rng.choice(NAMES)
    code = "x"
    for step in chosen:
        code = step.code.format(e=code, v=code if code == "x" else f"({code})")

    def apply(value: Any) -> Any:
        for step in chosen:
            value = step.apply(value)
        return value

    return CodeProblem(
        statement=f"Write {name}(x) for a {kind} x: {', then '.join(s.phrase for s in chosen)}.",
        entry_point=name,
        solution=f"def {name}(x):\n    return {code}",
        kind=kind,
        apply=apply,
        draw=argument,
    )


def _draw_number(rng: random.Random) -> int:
    return rng.randint(-30, 60)


def _draw_string(rng: random.Random) -> str:
    return "".join(rng.choice("abcdefgh") for _ in range(rng.randint(0, 9)))


def _draw_list(rng: random.Random) -> list[int]:
    return [rng.randint(-10, 40) for _ in range(rng.randint(0, 7))]


def _numbers(rng: random.Random, steps: int) -> CodeProblem:
    return _chain(rng, _number_step, "number", steps, _draw_number)


def _strings(rng: random.Random, steps: int) -> CodeProblem:
    return _chain(rng, _string_step, "string", steps, _draw_string)


def _lists(rng: random.Random, steps: int) -> CodeProblem:
    return _chain(rng, _list_step, "list", steps, _draw_list)


def _branches(rng: random.Random, steps: int) -> CodeProblem:
    then, other = (_chain(rng, _number_step, "number", max(1, steps - 1), _draw_number) for _ in range(2))
    bound, above = rng.randint(0, 30), rng.random() < 0.5
    name, word, sign = then.entry_point, "above" if above else "below", ">" if above else "<"
    yes, no = (p.solution.partition("return ")[2] for p in (then, other))
    ways = [p.statement.partition(": ")[2].rstrip(".") for p in (then, other)]

    def apply(value: int) -> Any:
        return (then if (value > bound if above else value < bound) else other).apply(value)

    return CodeProblem(
        statement=f"Write {name}(x) for a number x: if x is {word} {bound}, {ways[0]}, else {ways[1]}.",
        entry_point=name,
        solution=f"def {name}(x):\n    return {yes} if x {sign} {bound} else {no}",
        kind="number",
        apply=apply,
        draw=_draw_number,
    )


def _programs(rng: random.Random, steps: int) -> CodeProblem:
    problem = _numbers(rng, steps)
    ways = problem.statement.partition(": ")[2]
    expression = problem.solution.partition("return ")[2]
    return CodeProblem(
        statement=f"Write a program that reads a number x and prints the result: {ways}",
        entry_point="",
        solution=f"x = int(input())\nprint({expression})",
        kind="number",
        apply=problem.apply,
        draw=_draw_number,
        whole_program=True,
    )


FAMILIES: dict[str, Callable[[random.Random, int], CodeProblem]] = {
    "numbers": _numbers,
    "strings": _strings,
    "lists": _lists,
    "branches": _branches,
    "programs": _programs,
}
"""Functions that draw a problem with a given number of steps, by family."""
