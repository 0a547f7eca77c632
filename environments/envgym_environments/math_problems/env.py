"""Mathematics problems with an exact calculator and a verified final answer."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import pydantic

from envgym.env.answers import MAX_FORMAT_WEIGHT, call, has_format, reference_of, script
from envgym.env.chat_env import ChatEnv
from envgym.env.python_tool import PythonSession
from envgym.env.rubric import Reward, Rubric
from envgym.env.tools import Tool, ToolInputError, collect_tools, tool
from envgym.errors import DataError
from envgym.records import Message, Score, Split, Task, Trajectory
from envgym.sandbox.interface import Limits
from envgym.seeding import derive_rng
from envgym.tasks.procedural import ProceduralTasks, stable_id
from envgym_environments.math_problems.arithmetic import arithmetic, fractions, modular
from envgym_environments.math_problems.calculator import CalculatorError, calculate
from envgym_environments.math_problems.canonical import canonical
from envgym_environments.math_problems.checking import is_correct
from envgym_environments.math_problems.problem import Family, MathProblem
from envgym_environments.math_problems.problem_files import GSM8K, FileProblems
from envgym_environments.math_problems.stories import word_problems
from envgym_environments.math_problems.structures import combinatorics, linear_equations, sequences

__all__ = ["FAMILIES", "MathProblems"]

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
_ERROR_CHARS = 400
_FIRST_NUMBER = re.compile(r"\d+")
_MAX_DRAWS = 1000
_SYSTEM = Message(role="system", content="Solve the problem. Put the result in <answer></answer>.")


class MathProblems(ChatEnv):
    """Solve a problem, with a calculator on the way; the last message's answer is compared exactly.

    Only what the last message fences counts, and work left to the verifier (``12/4`` for 3) does not count.
    """

    class Config(ChatEnv.Config):
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
        examples: int = pydantic.Field(
            default=0, ge=0, le=16, description="solved problems shown before each question; none of them is asked"
        )
        calculator: bool = pydantic.Field(default=True, description="offer the calculator tool")
        python: bool = pydantic.Field(default=False, description="offer Python in a sandbox")
        python_seconds: float = pydantic.Field(
            default=10.0, gt=0, le=60, description="deadline of one call of Python"
        )
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

        @pydantic.model_validator(mode="after")
        def _file_settings_go_with_a_file(self) -> Self:
            names = ("held_out_file", "question_column", "answer_column", "answer_marker")
            given = [n for n in names if getattr(self, n) != type(self).model_fields[n].default]
            if self.source in ("procedural", "gsm8k") and given:
                raise ValueError(f"{', '.join(given)}: only for a source that is a file, not {self.source!r}")
            return self

    reward_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    config: Config

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        limits = Limits(wall_seconds=self.config.python_seconds)
        self._session = PythonSession(self.services, limits, error_chars=_ERROR_CHARS)

    def make_tools(self) -> dict[str, Tool]:
        """Return the tools that the settings offer."""
        offered = {"calculator": self.config.calculator, "python": self.config.python}
        return {name: made for name, made in collect_tools(self).items() if offered[name]}

    def tasks(self, split: Split) -> Sequence[Task]:
        """Return procedural problems made on demand, or the rows of the source.

        Raises:
            DataError: see ``FileProblems.load``; also on access to a procedural task, if the families make hardly
                any problem but the examples.
        """
        s = self.config
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
        return self._after_examples(split, files)

    async def finish(self) -> None:
        """Close the episode's Python session, if there is one."""
        await self._session.close()

    def gold(self, task: Task) -> Sequence[Message]:
        """Return one calculation where a calculator is offered, then the answer."""
        reference = reference_of(task)
        expression = reference.get("expression")
        calls = [call("calculator", expression=expression)] if expression and "calculator" in self.tools else []
        return script(calls, str(reference["answer"]))

    def novice(self, task: Task) -> Sequence[Message]:
        """Return half of the work: the first number of the calculation, as if it were the result."""
        reference = reference_of(task)
        half = _FIRST_NUMBER.search(str(reference.get("expression") or task.messages[-1].content))
        guess = half[0] if half else "0"
        calls = [call("calculator", expression=guess)] if "calculator" in self.tools else []
        return script(calls, f"-{guess}" if guess == str(reference["answer"]) else guess)

    async def score(self, trajectory: Trajectory) -> Score:
        """Return 1 for the right answer; a wrong one earns at most ``format_weight``."""
        share = self.config.format_weight
        rubric = Rubric(
            Reward(name="correct", function=is_correct, weight=1 - share),
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

    @tool(concurrent=False, timeout=120.0)
    async def python(self, code: str) -> str:
        """Run Python in a session and return what it prints; names survive from call to call."""
        return await self._session.run(code)

    def _generate(self, rng: random.Random, split: Split) -> Task:
        for _ in range(_MAX_DRAWS):
            family, level, problem = self._new_problem(rng)
            question = Message(role="user", content=problem.question)
            if question not in self._examples:
                return Task(
                    id=f"{family}/{level}/{stable_id(problem.question)}",
                    split=split,
                    messages=(_SYSTEM, *self._examples, question),
                    reference={"answer": problem.answer, "expression": problem.expression},
                    difficulty=float(level),
                    problem=canonical(problem.expression),
                    metadata={"family": family},
                )
        raise DataError(
            f"{_MAX_DRAWS} draws gave only problems that are shown as examples: set examples below "
            f"{self.config.examples}, or add families or levels"
        )

    def _new_problem(self, rng: random.Random) -> tuple[str, int, MathProblem]:
        family, level = rng.choice(self.config.families), rng.choice(self.config.levels)
        return family, level, FAMILIES[family](rng, level)

    @functools.cached_property
    def _examples(self) -> tuple[Message, ...]:
        """Messages of the solved problems before every procedural question."""
        rng = derive_rng("examples", self.config.task_seed)
        problems = [self._new_problem(rng)[2] for _ in range(self.config.examples)]
        return tuple(itertools.chain(*(_solved(p.question, p.answer, p.expression) for p in problems)))

    def _after_examples(self, split: Split, files: FileProblems) -> Sequence[Task]:
        """Return the file's tasks of a split; its first training rows are the examples, and are not asked."""
        count = self.config.examples
        if not count:
            return files.load(split, _SYSTEM)
        training = files.load("train", _SYSTEM)
        solved = [_solved(t.messages[-1].content, str(reference_of(t)["answer"])) for t in training[:count]]
        tasks = training[count:] if split == "train" else files.load(split, _SYSTEM)
        shown = (_SYSTEM, *itertools.chain(*solved))
        return [dataclasses.replace(t, messages=(*shown, t.messages[-1])) for t in tasks]


def _solved(question: str, answer: str, expression: str | None = None) -> tuple[Message, Message]:
    """Return a question with the instructions for answering it."""
    working = f"{expression} = {answer}\n" if expression else ""
    return (
        Message(role="user", content=question),
        Message(role="assistant", content=f"{working}<answer>{answer}</answer>"),
    )
