"""What every family of problems makes, and the numbers they draw from."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from envgym_environments.math_problems.calculator import calculate

__all__ = ["LEVELS", "Family", "Problem", "join"]

LEVELS = (1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question, and the calculation that solves it."""

    question: str
    expression: str
    """What the scripted expert gives to the calculator; its value is the answer."""

    @property
    def answer(self) -> str:
        """An integer, or a fraction in lowest terms."""
        return calculate(self.expression)


Family = Callable[[random.Random, int], Problem]
"""Draws a problem of a level from 1 to 5."""


def join(items: list[str]) -> str:
    """``a``, ``a and b`` or ``a, b and c``."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
