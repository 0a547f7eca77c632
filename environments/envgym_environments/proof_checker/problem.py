"""The problem type that every family makes, and a builder for it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from envgym.verifiers.logic import read_formula

__all__ = ["Draft", "Family", "ProofProblem", "negated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofProblem:
    """Premises, a goal, and a proof of the goal."""

    premises: tuple[str, ...]
    goal: str
    proof: tuple[str, ...]
    """Lines as ``check_proof`` reads them; the last one is the goal."""
    steps: tuple[str, ...]
    """Formulas of the proof's lines."""

    @property
    def question(self) -> str:
        """Text of the prompt: numbered premises, and the goal."""
        lines = [f"{number}. {premise}" for number, premise in enumerate(self.premises, 1)]
        return "\n".join(("Premises:", *lines, f"Goal: {self.goal}"))


Family = Callable[[random.Random, int], ProofProblem]
"""Draws a problem of a level from 1 to 5."""


@dataclass(slots=True)
class Draft:
    """A problem that grows from a fact, rule by rule; formulas are texts in printed form."""

    _premises: list[str] = field(default_factory=list)
    _steps: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def premise(self, text: str) -> str:
        """Add a premise."""
        self._premises.append(str(read_formula(text)))
        return self._premises[-1]

    def step(self, text: str, *uses: str) -> str:
        """Add a step of the proof that uses earlier formulas."""
        self._steps.append((str(read_formula(text)), uses))
        return self._steps[-1][0]

    def problem(self, rng: random.Random) -> ProofProblem:
        """Return the problem whose goal is the last step, its premises in any order."""
        premises = rng.sample(self._premises, len(self._premises))
        steps = [text for text, _ in self._steps]
        numbers = {text: number for number, text in enumerate([*premises, *steps], 1)}
        proof = tuple(self._lines(numbers))
        return ProofProblem(premises=tuple(premises), goal=steps[-1], proof=proof, steps=tuple(steps))

    def _lines(self, numbers: dict[str, int]) -> Iterator[str]:
        for text, uses in self._steps:
            cited = sorted(numbers[used] for used in uses)
            yield f"{numbers[text]}. {text} from {', '.join(map(str, cited))}"


def negated(literal: str) -> str:
    """Return the opposite of an atom or of its negation."""
    return literal.removeprefix("~") if literal.startswith("~") else f"~{literal}"
