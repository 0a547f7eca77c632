"""The problem type that every family makes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from envgym_environments.math_problems.calculator import calculate

__all__ = ["THINGS", "Family", "MathProblem"]

THINGS = (
    "apples",
    "books",
    "cards",
    "coins",
    "cups",
    "eggs",
    "keys",
    "nuts",
    "pens",
    "rings",
    "shells",
    "stamps",
)
"""Plural nouns for the things that problems count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MathProblem:
    """A question with the calculation that solves it."""

    question: str
    expression: str
    """Expression that the scripted expert gives to the calculator; its value is the answer."""

    @property
    def answer(self) -> str:
        """The answer: an integer, or a fraction in lowest terms."""
        return calculate(self.expression)


Family = Callable[[random.Random, int], MathProblem]
"""Draws a problem of a level from 1 to 5."""
