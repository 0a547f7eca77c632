"""The ``code_sandbox`` environment."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal, Self

import pydantic

from envgym.env.chat_env import ChatEnv, Reply
from envgym.env.python_tool import PythonSession
from envgym.env.tools import Tool, run_calls, tool
from envgym.records import Message, OutcomeKind, Score, Split, Task, ToolCall, Trajectory
from envgym.sandbox.interface import Limits
from envgym.tasks.procedural import ProceduralTasks
from envgym.verifiers.code_tests import Recording
from envgym_environments.code_sandbox.boxes import Boxes
from envgym_environments.code_sandbox.novice import without_last_operation
from envgym_environments.code_sandbox.procedural import make_task
from envgym_environments.code_sandbox.sources import load_tasks
from envgym_environments.code_sandbox.suites import read_suite

__all__ = ["CodeSandbox"]

Family = Literal["numbers", "strings", "lists", "branches", "programs"]
_SANDBOX_LIFE_SECONDS = 600.0
_TOOL_SECONDS = 900.0


class CodeSandbox(ChatEnv):
    """Write a function, try it on visible tests with ``run_tests``, then ``submit`` it, which ends the episode.

    Hidden tests decide, outside the sandbox in which the program ran: see ``envgym.verifiers.code_tests``. An
    episode without a submission scores 0.
    """

    class Config(ChatEnv.Config):
        """Settings of ``code_sandbox``."""

        source: str = pydantic.Field(
            default="procedural", description="procedural, humaneval, mbpp, or a file of one of their shapes"
        )
        families: tuple[Family, ...] = pydantic.Field(
            default=("numbers", "strings", "lists", "branches"),
            min_length=1,
            description="kinds of procedural problem",
        )
        steps: int = pydantic.Field(
            default=2, ge=1, le=12, description="steps of a procedural problem: its difficulty"
        )
        visible_tests: int = pydantic.Field(default=2, ge=1, le=20, description="tests that run_tests may use")
        hidden_tests: int = pydantic.Field(
            default=6, ge=1, le=50, description="tests of a procedural problem that decide"
        )
        reward: Literal["all", "fraction"] = pydantic.Field(
            default="all", description="1 when every hidden test passes, or the share that does"
        )
        call_seconds: float = pydantic.Field(
            default=5.0, gt=0, description="processor time of one call of the function"
        )
        wall_seconds: float = pydantic.Field(default=20.0, gt=0, description="deadline of one execution")
        feedback_chars: int = pydantic.Field(default=300, ge=40, description="longest answer of a tool")
        run_python: bool = pydantic.Field(
            default=False, description="offer a Python session; it holds a sandbox to the episode's end"
        )

    config: Config
    needs_sandbox = True

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._recordings: dict[str, Recording] = {}
        self._session = PythonSession(
            self.services, self._limits(self.config.call_seconds), error_chars=self.config.feedback_chars
        )

    def make_tools(self) -> dict[str, Tool]:
        """Return ``run_tests`` and ``submit``, and ``run_python`` where the settings offer it."""
        tools = super().make_tools()
        return {name: made for name, made in tools.items() if name != "run_python" or self.config.run_python}

    def tasks(self, split: Split) -> Sequence[Task]:
        """Return procedural problems, or those of a file."""
        chosen = self.config
        if chosen.source != "procedural":
            return load_tasks(chosen.source, split, chosen.visible_tests)

        def generate(rng: random.Random, split: Split) -> Task:
            return make_task(
                rng,
                split,
                families=chosen.families,
                steps=chosen.steps,
                visible=chosen.visible_tests,
                hidden=chosen.hidden_tests,
            )

        return ProceduralTasks(generate, split, chosen.size, chosen.task_seed)

    async def finish(self) -> None:
        """Close the episode's Python session, if there is one."""
        await self._session.close()

    def share(self, other: Self) -> None:
        """Share what has been found out about reference solutions."""
        self._recordings = other._recordings

    async def respond(self, action: Message) -> Reply:
        """Run the calls; a submission, or a message without a call, ends the episode."""
        if not action.tool_calls:
            return Reply(done=True)
        messages, metrics = await run_calls(self.tools, action.tool_calls)
        return Reply(messages=messages, metrics=metrics, done="submission" in self.trajectory.artifacts)

    async def score(self, trajectory: Trajectory) -> Score:
        """Run the submission on the hidden tests."""
        code = trajectory.artifacts.get("submission")
        if not isinstance(code, str) or trajectory.outcome.kind is OutcomeKind.TRUNCATED:
            return Score(value=0.0, accuracy=0.0, components={"hidden_tests": 0.0}, metrics={"submitted": 0.0})
        suite = read_suite(trajectory.task.reference)
        async with self._make_boxes() as boxes:
            results = await suite.run("hidden", code, boxes)
        share = sum(r.passed for r in results) / len(results)
        accuracy = float(share == 1)
        value = share if self.config.reward == "fraction" else accuracy
        metrics = {"submitted": 1.0, "hidden_share": share}
        return Score(value=value, accuracy=accuracy, components={"hidden_tests": value}, metrics=metrics)

    def gold(self, task: Task) -> Sequence[Message]:
        """Return a test of the reference solution, then its submission."""
        code = read_suite(task.reference).solution
        return [_say("run_tests", code), _say("submit", code)]

    def novice(self, task: Task) -> Sequence[Message]:
        """Return a submission without the last operation of the solution, in spite of what its test says."""
        code = without_last_operation(read_suite(task.reference).solution)
        return [_say("run_tests", code), _say("submit", code)]

    # The sandbox's own deadlines end every run long before the tool's, which would break the sandbox.
    @tool(concurrent=False, timeout=_TOOL_SECONDS)
    async def run_tests(self, code: str) -> str:
        """Run the visible tests on the code."""
        async with self._make_boxes() as boxes:
            results = await read_suite(self.trajectory.task.reference).run("visible", code, boxes)
        for result in results:
            if not result.passed:
                # An exception's text may hold lone surrogates, which no tokenizer and no file takes.
                return result.text[: self.config.feedback_chars].encode(errors="replace").decode()
        return "passed" if results else "there are no visible tests"

    @tool(concurrent=False, timeout=_TOOL_SECONDS)
    async def run_python(self, code: str) -> str:
        """Run Python in a session and return what it prints; names survive from call to call."""
        return (await self._session.run(code))[: self.config.feedback_chars]

    @tool(concurrent=False)
    async def submit(self, code: str) -> str:
        """Submit the code. This ends the conversation."""
        self.trajectory.artifacts.setdefault("submission", code)
        return "submitted"

    def _limits(self, wall_seconds: float) -> Limits:
        return Limits(wall_seconds=wall_seconds, total_seconds=_SANDBOX_LIFE_SECONDS)

    def _make_boxes(self) -> Boxes:
        """Return sandboxes for one run of tests; a few serve many episodes, since none is held between calls."""
        limits = self._limits(self.config.wall_seconds)
        return Boxes(self.services, limits, self.config.call_seconds, self._recordings)


def _say(name: str, code: str) -> Message:
    call = ToolCall(name=name, arguments={"code": code}, id="call_0")
    return Message(role="assistant", content="", tool_calls=(call,))
