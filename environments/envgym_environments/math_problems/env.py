"""Mathematics problems with an exact calculator and a verified final answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import pydantic

from envgym.core import ChatEnv, EnvSettings
from envgym.data import Message, Score, Split, Task, Trajectory
from envgym.errors import VerifierError
from envgym.rubric import Reward, Rubric
from envgym.tasks import ProceduralTasks, stable_id
from envgym.tools import Tool, ToolInputError, collect_tools, tool
from envgym.verifiers import verify_math
from envgym_environments.answers import MAX_FORMAT_WEIGHT, call, fenced_answer, has_format, reference_of, script
from envgym_environments.math_problems.arithmetic import arithmetic, fractions, modular
from envgym_environments.math_problems.calculator import CalculatorError, calculate
from envgym_environments.math_problems.files import GSM8K, FileProblems
from envgym_environments.math_problems.problem import Family
from envgym_environments.math_problems.stories import word_problems
from envgym_environments.math_problems.structures import combinatorics, linear_equations, sequences

__all__ = ["FAMILIES", "MathProblems", "MathSettings"]

FAMILIES: Mapping[str, Family] = {
    "arithmetic": arithmetic,
    "word_problems": word_problems,
    "linear_equations": linear_equations,
    "fractions": fractions,
    "modular": modular,
    "sequences": sequences,
    "combinatorics": combinatorics,
}
FamilyName = Literal[
    "arithmetic", "word_problems", "linear_equations", "fractions", "modular", "sequences", "combinatorics"
]
_SYSTEM = Message(role="system", content="Solve the problem. Put the result in <answer></answer>.")


class MathSettings(EnvSettings):
    """Settings of ``MathProblems``."""

    source: str = pydantic.Field(
        default="procedural",
        description="procedural, gsm8k, or a .jsonl file of problems (path or name in ENVGYM_DATA)",
    )
    families: tuple[FamilyName, ...] = pydantic.Field(
        default=("arithmetic", "word_problems"),
        min_length=1,
        description="procedural families, drawn equally often",
    )
    levels: tuple[Literal[1, 2, 3, 4, 5], ...] = pydantic.Field(
        default=(1,), min_length=1, description="difficulties, drawn equally often"
    )
    calculator: bool = pydantic.Field(default=True, description="offer the calculator tool")
    format_weight: float = pydantic.Field(
        default=0.0, ge=0, le=MAX_FORMAT_WEIGHT, description="share of the reward for fencing an answer"
    )
    held_out_file: str = pydantic.Field(
        default="", description="held-out problems of a file source; without it one in five rows is held out"
    )
    question_column: str = pydantic.Field(default="question", description="column of a file source")
    answer_column: str = pydantic.Field(default="answer", description="column of a file source")
    answer_marker: str = pydantic.Field(
        default="", description="the answer is what follows it; '' is the whole column"
    )


class MathProblems(ChatEnv):
    """Solve a problem, with a calculator on the way; the last message's answer is compared exactly.

    A step that leaves the division to the verifier (``12/4`` for 3) is not an answer.
    """

    Settings = MathSettings
    reward_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    settings: MathSettings

    def make_tools(self) -> dict[str, Tool]:
        """The calculator, where the settings offer it."""
        return collect_tools(self) if self.settings.calculator else {}

    def tasks(self, split: Split) -> Sequence[Task]:
        """Procedural problems made on demand, or the rows of the source.

        Raises:
            DataError: see ``FileProblems.load``.
        """
        s = self.settings
        if s.source == "procedural":
            return ProceduralTasks(self._generate, split, s.size, s.task_seed)
        files = (
            GSM8K
            if s.source == "gsm8k"
            else FileProblems(
                train_file=s.source,
                held_out_file=s.held_out_file,
                question_column=s.question_column,
                answer_column=s.answer_column,
                answer_marker=s.answer_marker,
            )
        )
        return files.load(split, _SYSTEM)

    def gold(self, task: Task) -> Sequence[Message]:
        """One calculation where a calculator is on offer, then the answer."""
        reference = reference_of(task)
        expression = reference.get("expression")
        calls = [call("calculator", expression=expression)] if expression and self.tools else []
        return script(calls, str(reference["answer"]))

    async def score(self, trajectory: Trajectory) -> Score:
        """1 for the right answer; a wrong one earns at most ``format_weight``."""
        share = self.settings.format_weight
        rubric = Rubric(
            Reward(name="correct", function=_correct, weight=1 - share),
            Reward(name="format", function=has_format, weight=share),
        )
        return await rubric.score(trajectory)

    @tool
    async def calculator(self, expression: str) -> str:
        """Evaluate an expression exactly."""
        try:
            return calculate(expression)
        except CalculatorError as error:
            raise ToolInputError(str(error)) from None

    def _generate(self, rng: random.Random, split: Split) -> Task:
        family, level = rng.choice(self.settings.families), rng.choice(self.settings.levels)
        problem = FAMILIES[family](rng, level)
        return Task(
            id=f"{family}/{level}/{stable_id(problem.question)}",
            split=split,
            messages=(_SYSTEM, Message(role="user", content=problem.question)),
            reference={"answer": problem.answer, "expression": problem.expression},
            difficulty=float(level),
            metadata={"family": family},
        )


async def _correct(trajectory: Trajectory) -> float:
    answer = fenced_answer(trajectory)
    gold = str(reference_of(trajectory.task)["answer"])
    if answer is None or _undone(answer, gold):
        return 0.0
    # A thread, because computer algebra may take its whole time limit.
    verdict = await asyncio.to_thread(verify_math, f"<answer>{answer}</answer>", gold)
    if not verdict.decided:
        raise VerifierError(f"{verdict.verdict}: {verdict.reason}")
    return float(verdict.correct)


def _undone(answer: str, gold: str) -> bool:
    """Whether ``answer`` leaves a division to be done that the gold has done."""
    return any(sign in answer and sign not in gold for sign in ("/", "\\frac", "\\div"))
