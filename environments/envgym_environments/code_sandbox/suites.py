"""Tests of a task, as kept in its reference, with a way to run each kind."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import JsonValue

from envgym.sandbox.interface import Status
from envgym.verifiers.code_tests import (
    AssertSuite,
    Call,
    Died,
    Raised,
    Result,
    Returned,
    TestResult,
    call_program,
    check_asserts,
    equal,
    record_calls,
    same_output,
)
from envgym.verifiers.code_tests.tagged_json import decode
from envgym_environments.code_sandbox.boxes import Boxes

__all__ = ["AssertTests", "StdioTest", "StdioTests", "Suite", "ValueTest", "ValueTests", "Which", "read_suite"]

Which = Literal["visible", "hidden"]
RESTARTS = 3
"""Times a program's process is restarted, for the calls after one that ended it."""


class ValueTest(pydantic.BaseModel):
    """One call and its expected result, both as tagged JSON."""

    arguments: list[JsonValue]
    expected: JsonValue


class ValueTests(pydantic.BaseModel):
    """Calls with expected results; only the arguments enter the sandbox."""

    kind: Literal["values"] = "values"
    entry_point: str
    solution: str
    visible: list[ValueTest]
    hidden: list[ValueTest]
    tolerance: float = 0.0

    async def run(self, which: Which, code: str, boxes: Boxes) -> list[TestResult]:
        """Test a program; one result per test.

        Raises:
            SandboxError: the sandbox failed, not the program.
        """
        tests = self.visible if which == "visible" else self.hidden
        calls = [Call(arguments=tuple(decode(a) for a in test.arguments)) for test in tests]
        sandbox = await boxes.program()
        results = await call_program(
            sandbox, code, self.entry_point, calls, call_seconds=boxes.call_seconds, restarts=RESTARTS
        )
        return [self._judge(test, result) for test, result in zip(tests, results, strict=True)]

    def _judge(self, test: ValueTest, result: Result) -> TestResult:
        expected = decode(test.expected)
        call = f"{self.entry_point}({', '.join(_show(decode(a)) for a in test.arguments)})"
        match result:
            case Returned(value) if equal(expected, value, self.tolerance):
                return TestResult(passed=True)
            case Returned(value):
                return TestResult(passed=False, text=f"{call} gave {_show(value)}, not {_show(expected)}")
            case Raised(kind, text):
                return TestResult(passed=False, text=f"{call} raised {kind}: {text}")
            case Died(status):
                return TestResult(passed=False, text=f"{call} ended the program ({status})")


class AssertTests(pydantic.BaseModel):
    """Test code that holds expected values; see ``envgym.verifiers.code_tests.asserts``."""

    kind: Literal["asserts"] = "asserts"
    entry_point: str
    solution: str
    preamble: str = ""
    visible: list[str]
    hidden: list[str]

    async def run(self, which: Which, code: str, boxes: Boxes) -> list[TestResult]:
        """Test a program; one result per test. A visible test that the reference fails is left out.

        Raises:
            VerifierError: the reference fails a hidden test.
            SandboxError: a sandbox failed, not the program.
        """
        tests = tuple(dict.fromkeys((*self.visible, *self.hidden)))
        suite = AssertSuite(entry_point=self.entry_point, setup=self.solution, tests=tests, preamble=self.preamble)
        checker = await boxes.checker()
        key = "\0".join((self.solution, *tests))
        recording = boxes.recordings.get(key) or await record_calls(checker, suite)
        deciding = [tests.index(test) for test in self.hidden]
        if recording.failures.keys().isdisjoint(deciding):  # a failure may be transient: record again next time
            boxes.recordings[key] = recording
        shown = [n for n in map(tests.index, self.visible) if n not in recording.failures]
        wanted = shown if which == "visible" else deciding
        results = await check_asserts(
            await boxes.program(), checker, suite, recording, code, tests=wanted, call_seconds=boxes.call_seconds
        )
        return [_named(tests[n], result) for n, result in zip(wanted, results, strict=True)]


def _named(test: str, result: TestResult) -> TestResult:
    """Return a failure with the last line of its test, which is its assert."""
    if result.passed:
        return result
    return TestResult(passed=False, text=f"{test.strip().splitlines()[-1]} failed: {result.text}")


class StdioTest(pydantic.BaseModel):
    """A program's input and its expected output."""

    stdin: str
    stdout: str


class StdioTests(pydantic.BaseModel):
    """Whole programs: one execution per test, and only its input enters the sandbox."""

    kind: Literal["stdio"] = "stdio"
    solution: str
    visible: list[StdioTest]
    hidden: list[StdioTest]

    async def run(self, which: Which, code: str, boxes: Boxes) -> list[TestResult]:
        """Test a program; one result per test.

        Raises:
            SandboxError: the sandbox failed, not the program.
        """
        sandbox = await boxes.program()
        results = []
        for test in self.visible if which == "visible" else self.hidden:
            done = await sandbox.run_python(code, stdin=test.stdin.encode(), wall_seconds=boxes.call_seconds)
            if done.status in (Status.OK, Status.NONZERO) and same_output(test.stdout, done.text):
                results.append(TestResult(passed=True))
                continue
            last_words = done.error_text.strip().splitlines()[-1:]
            text = f"for input {test.stdin!r} it printed {done.text!r}, not {test.stdout!r}"
            results.append(TestResult(passed=False, text="; ".join([text, f"status {done.status}", *last_words])))
        return results


def _show(value: object) -> str:
    """Return a value as the policy sees it; Python refuses to write out very large integers."""
    try:
        return repr(value)
    except ValueError:
        return "a very large number"


Suite = ValueTests | AssertTests | StdioTests
_ADAPTER: pydantic.TypeAdapter[Suite] = pydantic.TypeAdapter(
    Annotated[Suite, pydantic.Field(discriminator="kind")]
)


def read_suite(reference: JsonValue) -> Suite:
    """Read the tests in a task's reference."""
    return _ADAPTER.validate_python(reference)
