"""The ``code_sandbox`` environment."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from typing import Literal

import pydantic

from envgym.core import ChatEnv, EnvSettings, Reply
from envgym.data import Message, OutcomeKind, Score, Split, Task, ToolCall, Trajectory
from envgym.errors import EnvironmentFailure
from envgym.sandbox import Limits, Sandbox
from envgym.tasks import ProceduralTasks
from envgym.tools import run_calls, tool
from envgym.verifiers.code import Call, Died, Raised, Result, Returned, call_program, equal
from envgym.verifiers.code.wire import decode
from envgym_environments.code_sandbox.procedural import ValueTest, ValueTests, make_task

__all__ = ["CodeSandbox", "CodeSettings"]

Family = Literal["numbers", "strings", "lists", "branches"]


class CodeSettings(EnvSettings):
    """Settings of ``code_sandbox``."""

    families: tuple[Family, ...] = pydantic.Field(
        default=("numbers", "strings", "lists", "branches"), min_length=1, description="kinds of problem"
    )
    steps: int = pydantic.Field(default=2, ge=1, le=12, description="steps that a function chains: the difficulty")
    visible_tests: int = pydantic.Field(default=2, ge=1, le=20, description="tests that run_tests may use")
    hidden_tests: int = pydantic.Field(default=6, ge=1, le=50, description="tests that decide")
    reward: Literal["all", "fraction"] = pydantic.Field(
        default="all", description="1 when every hidden test passes, or the share that does"
    )
    call_seconds: float = pydantic.Field(default=2.0, gt=0, description="deadline of one call of the function")
    wall_seconds: float = pydantic.Field(default=10.0, gt=0, description="deadline of one execution")
    feedback_chars: int = pydantic.Field(default=300, ge=40, description="longest answer of a tool")


class CodeSandbox(ChatEnv):
    """Write a function, try it on visible tests with ``run_tests``, then ``submit`` it, which ends the episode.

    The hidden tests' arguments go into the sandbox with the program; what comes back is compared outside. An
    episode without a submission is worth 0.
    """

    Settings = CodeSettings
    needs_sandbox = True

    _sandbox: Sandbox | None = None

    def tasks(self, split: Split) -> Sequence[Task]:
        """Procedural problems."""
        chosen = self.settings

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
        """Close the episode's sandbox."""
        if self._sandbox is not None:
            sandbox, self._sandbox = self._sandbox, None
            await sandbox.close()

    async def respond(self, action: Message) -> Reply:
        """Run the calls; a submission, or a message without a call, ends the episode."""
        if not action.tool_calls:
            return Reply(done=True)
        messages, metrics = await run_calls(self.tools, action.tool_calls)
        return Reply(messages=messages, metrics=metrics, done="submission" in self._record.artifacts)

    async def score(self, trajectory: Trajectory) -> Score:
        """Run the submission on the hidden tests."""
        code = trajectory.artifacts.get("submission")
        if not isinstance(code, str) or trajectory.outcome.kind is OutcomeKind.TRUNCATED:
            return Score(value=0.0, accuracy=0.0, components={"hidden_tests": 0.0}, metrics={"submitted": 0.0})
        tests = ValueTests.model_validate(trajectory.task.reference)
        async with self._open(trajectory) as sandbox:
            results = await self._run(sandbox, code, tests.entry_point, tests.hidden)
        passed = [_passes(t, r, tests.tolerance) for t, r in zip(tests.hidden, results, strict=True)]
        share = sum(passed) / len(passed)
        value = share if self.settings.reward == "fraction" else float(all(passed))
        metrics = {"submitted": 1.0, "hidden_share": share}
        return Score(value=value, accuracy=float(all(passed)), components={"hidden_tests": value}, metrics=metrics)

    def gold(self, task: Task) -> Sequence[Message]:
        """Test the reference solution, then submit it."""
        code = ValueTests.model_validate(task.reference).solution
        return [_say("run_tests", code), _say("submit", code)]

    @tool(concurrent=False, timeout=120.0)
    async def run_tests(self, code: str) -> str:
        """Run the visible tests on the code."""
        tests = ValueTests.model_validate(self._record.task.reference)
        async with self._open(self._record) as sandbox:
            results = await self._run(sandbox, code, tests.entry_point, tests.visible)
        for test, result in zip(tests.visible, results, strict=True):
            if not _passes(test, result, tests.tolerance):
                return _explain(tests.entry_point, test, result)[: self.settings.feedback_chars]
        return "passed"

    @tool(concurrent=False)
    async def submit(self, code: str) -> str:
        """Submit the code. This ends the conversation."""
        self._record.artifacts["submission"] = code
        return "submitted"

    @property
    def _record(self) -> Trajectory:
        if self.trajectory is None:
            raise EnvironmentFailure("a tool was called before reset()")
        return self.trajectory

    @contextlib.asynccontextmanager
    async def _open(self, trajectory: Trajectory) -> AsyncIterator[Sandbox]:
        """The running episode's sandbox, or one for this trajectory alone."""
        limits = Limits(wall_seconds=self.settings.wall_seconds)
        if not (self.running and trajectory is self.trajectory):
            async with await self.services.open_sandbox(limits) as sandbox:
                yield sandbox
            return
        if self._sandbox is None:
            self._sandbox = await self.services.open_sandbox(limits)
        yield self._sandbox

    async def _run(
        self, sandbox: Sandbox, code: str, entry_point: str, tests: Sequence[ValueTest]
    ) -> list[Result]:
        calls = [Call(arguments=tuple(decode(a) for a in test.arguments)) for test in tests]
        restarts = 3 if self.settings.reward == "fraction" else 0
        seconds = self.settings.call_seconds
        return await call_program(sandbox, code, entry_point, calls, call_seconds=seconds, restarts=restarts)


def _passes(test: ValueTest, result: Result, tolerance: float) -> bool:
    return isinstance(result, Returned) and equal(decode(test.expected), result.value, tolerance)


def _explain(entry_point: str, test: ValueTest, result: Result) -> str:
    call = f"{entry_point}({', '.join(repr(decode(a)) for a in test.arguments)})"
    match result:
        case Returned(value):
            return f"{call} gave {value!r}, not {decode(test.expected)!r}"
        case Raised(kind, text):
            return f"{call} raised {kind}: {text}"
        case Died(status):
            return f"{call} ended the program ({status})"


def _say(name: str, code: str) -> Message:
    call = ToolCall(name=name, arguments={"code": code}, id="call_0")
    return Message(role="assistant", content="", tool_calls=(call,))
