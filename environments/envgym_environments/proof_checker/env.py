"""Proofs in propositional and first-order logic, checked step by step."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, Self

import pydantic

from envgym.env.answers import call, fenced_answer, reference_of, script
from envgym.env.chat_env import ChatEnv
from envgym.env.rubric import Reward, Rubric
from envgym.env.tools import Tool, collect_tools, tool
from envgym.errors import DataError
from envgym.records import Message, Score, Split, Task, Trajectory
from envgym.tasks.procedural import ProceduralTasks, stable_id
from envgym.verifiers.logic import Formula, ProofVerdict, StepRules, check_proof, read_formula
from envgym.verifiers.logic.formula_parser import WRITTEN_CHARS
from envgym_environments.proof_checker.canonical import proof_key
from envgym_environments.proof_checker.first_order import first_order
from envgym_environments.proof_checker.problem import Family, ProofProblem
from envgym_environments.proof_checker.proof_files import file_problems
from envgym_environments.proof_checker.propositional import propositional

__all__ = ["FAMILIES", "ProofChecker"]

FAMILIES: Mapping[str, Family] = {"propositional": propositional, "first_order": first_order}


class ProofChecker(ChatEnv):
    """Prove a goal from premises in small steps; a prover checks each of them.

    Only the fenced proof in the last message counts, and all of its lines must follow.
    """

    class Config(ChatEnv.Config):
        """Settings of ``ProofChecker``."""

        source: str = pydantic.Field(
            default="procedural",
            description="procedural, or a .jsonl file of problems (premises, goal and perhaps proof)",
        )
        held_out_file: str = pydantic.Field(
            default="", description="held-out problems of a file source; without it one in five rows is held out"
        )
        families: tuple[Literal["propositional", "first_order"], ...] = pydantic.Field(
            default=("propositional", "first_order"),
            min_length=1,
            description="procedural families, drawn equally often",
        )
        levels: tuple[Literal[1, 2, 3, 4, 5], ...] = pydantic.Field(
            default=(1,), min_length=1, description="difficulties, drawn equally often: longer proofs, more rules"
        )
        checker: bool = pydantic.Field(default=True, description="offer the tool that checks a proof")
        max_cited: int = pydantic.Field(default=2, ge=2, le=4, description="lines that one step may use")
        max_atoms: int = pydantic.Field(default=4, ge=3, le=8, description="atoms in one step's formula")
        max_lines: int = pydantic.Field(default=40, ge=1, le=100, description="lines of a proof")
        progress_weight: float = pydantic.Field(
            default=0.0,
            ge=0,
            le=0.5,
            description="share of the reward for the expert's steps before the first wrong one",
        )

        @pydantic.model_validator(mode="after")
        def _held_out_goes_with_a_file(self) -> Self:
            if self.source == "procedural" and self.held_out_file:
                raise ValueError("held_out_file: only for a source that is a file")
            return self

    reward_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    config: Config

    def make_tools(self) -> dict[str, Tool]:
        """Return the tool that checks a proof, where the settings offer it."""
        return collect_tools(self) if self.config.checker else {}

    def tasks(self, split: Split) -> Sequence[Task]:
        """Return procedural problems made on demand, or the rows of a file.

        Raises:
            DataError: see ``file_problems``.
        """
        s = self.config
        if s.source == "procedural":
            return ProceduralTasks(self._generate, split, s.size, s.task_seed)
        return file_problems(split, s.source, s.held_out_file, self._rules, self._task)

    def gold(self, task: Task) -> Sequence[Message]:
        """Return the expert's actions: the proof, checked first where the tool is offered.

        Raises:
            DataError: the row of a file holds no proof.
        """
        proof = "\n".join(_texts(task, "proof"))
        if not proof:
            raise DataError(f"task {task.id}: the row has no proof, so there is no expert for it")
        return script([call("check", proof=proof)] if "check" in self.tools else [], f"\n{proof}\n")

    def novice(self, task: Task) -> Sequence[Message]:
        """Return the expert's proof without its last line, unchecked."""
        lines = _texts(task, "proof")
        return script([], "\n" + "\n".join(lines[:-1]) + "\n")

    async def score(self, trajectory: Trajectory) -> Score:
        """Return 1 for a proof; without one, at most ``progress_weight``.

        Raises:
            VerifierError: the prover failed.
        """
        verdict = await self._verdict(trajectory.task, fenced_answer(trajectory) or "")
        undecided = any(line.validity == "undecided" for line in verdict.lines)
        share = self.config.progress_weight
        rubric = Rubric(
            Reward(name="proved", function=lambda _: float(verdict.proved), weight=1 - share),
            Reward(name="progress", function=lambda t: _progress(t.task, verdict), weight=share),
            Reward(name="undecided", function=lambda _: float(undecided), weight=0.0),
        )
        return await rubric.score(trajectory)

    @tool
    async def check(self, proof: str) -> str:
        """Check a proof line by line, without handing it in."""
        return "\n".join(_report(await self._verdict(self.trajectory.task, proof)))

    async def _verdict(self, task: Task, proof: str) -> ProofVerdict:
        premises, (goal,) = _formulas(task, "premises"), _formulas(task, "goal")
        # In a thread, because the prover may take a second.
        return await asyncio.to_thread(check_proof, proof, premises, goal, self._rules)

    @property
    def _rules(self) -> StepRules:
        s = self.config
        return StepRules(max_cited=s.max_cited, max_atoms=s.max_atoms, max_lines=s.max_lines)

    def _generate(self, rng: random.Random, split: Split) -> Task:
        family, level = rng.choice(self.config.families), rng.choice(self.config.levels)
        problem = FAMILIES[family](rng, level)
        return self._task(f"{family}/{level}/{stable_id(problem.question)}", split, problem, float(level))

    def _task(self, task_id: str, split: Split, problem: ProofProblem, difficulty: float = 1.0) -> Task:
        return Task(
            id=task_id,
            split=split,
            messages=(self._system(), Message(role="user", content=problem.question)),
            reference={
                "premises": list(problem.premises),
                "goal": problem.goal,
                "proof": list(problem.proof),
                "steps": list(problem.steps),
            },
            difficulty=difficulty,
            problem=proof_key([_read(premise) for premise in problem.premises], _read(problem.goal)),
        )

    def _system(self) -> Message:
        s = self.config
        return Message(
            role="system",
            content="Prove the goal. Go on numbering after the premises, one step a line: a formula, then the "
            f"lines that it follows from, {s.max_cited} at most, such as: 4. p & q from 1, 3. A step says "
            f"{s.max_atoms} atoms at most, and the last one is the goal. Put the proof in <answer></answer>.",
        )


def _progress(task: Task, verdict: ProofVerdict) -> float:
    """Return the share of the expert's steps that stand before the first broken line; 1 for any proof."""
    expected = set(_formulas(task, "steps"))
    if verdict.proved or not expected:
        return float(verdict.proved)
    return len(expected & verdict.established()) / len(expected)


def _report(verdict: ProofVerdict) -> Iterator[str]:
    for line in verdict.lines:
        said = f"{line.number}. {line.line}" if line.line else f"{line.number}."
        yield f"{said}: {line.reason or 'follows'}"
    yield "proved" if verdict.proved else f"not proved: {verdict.reason}"


def _texts(task: Task, name: str) -> list[str]:
    texts = reference_of(task)[name]
    return [str(text) for text in texts] if isinstance(texts, list) else [str(texts)]


def _formulas(task: Task, name: str) -> list[Formula]:
    return [_read(text) for text in _texts(task, name)]


def _read(text: str) -> Formula:
    return read_formula(text, max_chars=WRITTEN_CHARS)
