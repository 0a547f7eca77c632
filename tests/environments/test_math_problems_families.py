"""Every family makes what it says, and its golds are right by a computation of another kind."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterator
from fractions import Fraction

import pytest

from envgym.verifiers import verify_math
from envgym_environments.math_problems.env import FAMILIES
from envgym_environments.math_problems.problem import MathProblem

CASES = list(itertools.product(FAMILIES, range(1, 6)))


def problems(family: str, level: int, count: int = 60) -> Iterator[tuple[MathProblem, list[int]]]:
    """Problems of a family, each with the whole numbers in its question."""
    rng = random.Random(f"{family}{level}")
    for _ in range(count):
        problem = FAMILIES[family](rng, level)
        yield problem, [int(n) for n in re.findall(r"\d+", problem.question)]


@pytest.mark.parametrize(("family", "level"), CASES)
def test_golds_verify_and_their_mutations_do_not(family: str, level: int) -> None:
    """A gold equals itself; one more, one less and its opposite do not equal it."""
    for problem, _ in problems(family, level):
        gold = Fraction(problem.answer)
        assert verify_math(f"<answer>{problem.answer}</answer>", problem.answer).correct, problem
        for wrong in {gold + 1, gold - 1, -gold} - {gold}:
            assert not verify_math(f"<answer>{wrong}</answer>", problem.answer).correct, problem


@pytest.mark.parametrize(("family", "level"), CASES)
def test_there_are_many_problems(family: str, level: int) -> None:
    questions = {problem.question for problem, _ in problems(family, level, 400)}
    assert len(questions) > 60


@pytest.mark.parametrize(("family", "level"), CASES)
def test_the_expression_fits_the_calculator_and_small_contexts(family: str, level: int) -> None:
    for problem, _ in problems(family, level):
        assert len(problem.expression) <= 200
        assert len(problem.question) <= 400


@pytest.mark.parametrize("level", range(1, 6))
def test_equations_hold_at_their_solution(level: int) -> None:
    for problem, _ in problems("linear_equations", level):
        left, right = problem.question.removeprefix("Solve ").removesuffix(" for x.").split(" = ")
        assert evaluate(left, problem.answer) == evaluate(right, problem.answer), problem


def evaluate(side: str, solution: str) -> Fraction:
    """A side of an equation in the shapes ``ax + b``, ``a(x + b)``, ``c - ax`` and ``c``."""
    x = Fraction(solution)
    if found := re.fullmatch(r"(\d+)\(x \+ (\d+)\)", side):
        return int(found[1]) * (x + int(found[2]))
    total, sign = Fraction(0), 1
    for term in side.split():
        if term in "+-":
            sign = 1 if term == "+" else -1
        elif term.endswith("x"):
            total += sign * int(term[:-1] or 1) * x
        else:
            total += sign * int(term)
    return total


@pytest.mark.parametrize("level", [1, 2, 3])
def test_remainders(level: int) -> None:
    for problem, numbers in problems("modular", level):
        number = {1: numbers[0], 2: math.prod(numbers[:2]), 3: numbers[0] ** numbers[-2]}[level]
        assert int(problem.answer) == number % numbers[-1], problem


def test_inverses_and_congruences_by_search() -> None:
    for problem, (_, last, factor, _, prime) in problems("modular", 4):
        assert [int(problem.answer)] == [x for x in range(1, last + 1) if factor * x % prime == 1]
    for problem, (_, rest_1, first, rest_2, second) in problems("modular", 5):
        fitting = [x for x in range(first * second) if x % first == rest_1 and x % second == rest_2]
        assert [int(problem.answer)] == fitting, problem


def test_sequences_continue_as_they_begin() -> None:
    for problem, numbers in problems("sequences", 1):
        assert int(problem.answer) == 2 * numbers[-1] - numbers[-2]
    for problem, (place, *shown) in problems("sequences", 2):
        assert int(problem.answer) == shown[0] + (place - 1) * (shown[1] - shown[0])
    for problem, (place, *shown) in problems("sequences", 3):
        assert Fraction(problem.answer) == shown[0] * Fraction(shown[1], shown[0]) ** (place - 1)
    for problem, (place, *shown) in problems("sequences", 4):
        while len(shown) < place:
            shown.append(3 * shown[-1] - 3 * shown[-2] + shown[-3])
        assert int(problem.answer) == shown[place - 1]
    for problem, (place, *shown) in problems("sequences", 5):
        assert int(problem.answer) == sum(shown[0] + i * (shown[1] - shown[0]) for i in range(place))


def test_counts_by_enumeration() -> None:
    for problem, numbers in problems("combinatorics", 1):
        assert int(problem.answer) == math.prod(numbers)
    for problem, (part, total) in problems("combinatorics", 2):
        assert int(problem.answer) == math.perm(total, part)
    for problem, (part, total) in problems("combinatorics", 3):
        assert int(problem.answer) == math.comb(total, part)
    for problem, _ in problems("combinatorics", 4, 8):
        word = problem.question.split()[8]
        assert int(problem.answer) == len(set(itertools.permutations(word)))
    for problem, (coins, people) in problems("combinatorics", 5):
        assert int(problem.answer) == math.comb(coins + people - 1, people - 1)


@pytest.mark.parametrize("level", range(1, 6))
def test_stories_add_up_event_by_event(level: int) -> None:
    """The answer is recomputed from the sentences alone and stays a whole number above 0."""
    for problem, _ in problems("word_problems", level):
        first, *events, _ = re.split(r"(?<=[.?]) ", problem.question)
        count = Fraction(int(re.findall(r"\d+", first)[0]))
        for event in events:
            number = int(re.findall(r"\d+", event)[0])
            if "come" in event or "added" in event:
                count += number
            elif "lost" in event or "sold" in event:
                count -= number
            else:
                count = count * number if "grows" in event else count / number
            assert count > 0
            assert count.denominator == 1
        assert len(events) == level
        assert problem.answer == str(count), problem
