"""Run tests that hold their expected values (HumanEval's ``check``, MBPP's asserts) without showing them.

The test code never shares a sandbox with the program, which could read the expected values there. It runs once
with the reference solution, which records the calls and proves that the reference passes; the program is called
with the recorded arguments in a sandbox of its own; then the test code runs again, without the program, over a
table of its results. Arguments are copied on the way, so the tests do not see changes made to them in place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envgym.errors import VerifierError
from envgym.sandbox.interface import ExecResult, Sandbox
from envgym.verifiers.code_tests.programs import (
    Call,
    Died,
    Raised,
    Result,
    Returned,
    answers,
    call_program,
    guest_source,
    tagged_call,
)
from envgym.verifiers.code_tests.tagged_json import decode, encode

__all__ = ["AssertSuite", "Recording", "TestResult", "check_asserts", "record_calls"]

ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertSuite:
    """Test code with the function that it tests."""

    entry_point: str
    setup: str
    """Source of the reference solution and of everything else that the tests use."""
    tests: tuple[str, ...]
    """Sources of the tests; each runs as a module that sees ``setup``, with a stand-in for the entry point and
    ``candidate``."""
    preamble: str = ""
    """Source that a program may rely on: the imports and helper functions of its prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """Outcome of one test."""

    passed: bool
    text: str = ""
    """Reason of a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Result of running the tests on the reference solution."""

    calls: Mapping[int, Sequence[Call]]
    """Calls of each test."""
    failures: Mapping[int, str]
    """Reasons by test for those that the reference itself fails: they cannot judge a program."""


async def record_calls(checker: Sandbox, suite: AssertSuite) -> Recording:
    """Run every test on the reference solution.

    Raises:
        SandboxError: the sandbox failed.
    """
    done = await _run_tests(checker, suite, "record", range(len(suite.tests)), [])
    calls: dict[int, list[Call]] = {number: [] for number in range(len(suite.tests))}
    last_words = done.error_text.strip().splitlines()[-1:]
    failures = dict.fromkeys(calls, "; ".join([f"the run ended with status {done.status}", *last_words]))
    for parts in answers(done):
        match parts:
            case [int(number), "call", arguments, keywords] if number in calls:
                calls[number].append(_call(arguments, keywords))
            case [int(number), "passed"]:
                failures.pop(number, None)
            case [int(number), "failed", kind, text]:
                failures[number] = f"{kind}: {text}"
    return Recording(calls=calls, failures=failures)


async def check_asserts(
    sandbox: Sandbox,
    checker: Sandbox,
    suite: AssertSuite,
    recording: Recording,
    program: str,
    *,
    tests: Sequence[int],
    call_seconds: float = 2.0,
) -> list[TestResult]:
    """Test a program.

    Args:
        sandbox: sandbox for the program.
        checker: sandbox for the test code; no program may ever have run in it.
        suite: the tests.
        recording: result of ``record_calls``.
        program: source text.
        tests: indices of the tests to run; the reference must pass them.
        call_seconds: limit on each call in seconds of processor time.

    Returns:
        one result per index in ``tests``.

    Raises:
        VerifierError: the reference does not pass one of the tests.
        SandboxError: a sandbox failed, not the program.
    """
    for number in tests:
        if number in recording.failures:
            reason = recording.failures[number]
            raise VerifierError(f"{suite.entry_point!r}: the reference fails test {number} ({reason})")
    calls = [call for number in tests for call in recording.calls[number]]
    table: list[tuple[Call, Result]] = []
    for _ in range(ROUNDS):
        results = await call_program(
            sandbox, program, suite.entry_point, calls, preamble=suite.preamble, call_seconds=call_seconds
        )
        table += zip(calls, results, strict=True)
        done = await _run_tests(checker, suite, "replay", tests, table)
        replies = {p[0]: p for p in answers(done) if p and isinstance(p[0], int)}
        calls = [_call(p[2], p[3]) for p in replies.values() if p[1:2] == ["needs"] and len(p) == 4]
        if not calls:
            break
    return [_result(replies.get(number), done) for number in tests]


async def _run_tests(
    checker: Sandbox, suite: AssertSuite, mode: str, tests: Sequence[int], table: Sequence[tuple[Call, Result]]
) -> ExecResult:
    request = {
        "mode": mode,
        "setup": suite.setup,
        "entry_point": suite.entry_point,
        "tests": [[number, suite.tests[number]] for number in tests],
        "table": [[*tagged_call(call), _tagged_result(result)] for call, result in table],
    }
    return await checker.run_python(guest_source("guest_tests.py"), stdin=json.dumps(request).encode())


def _call(arguments: Any, keywords: Any) -> Call:
    return Call(arguments=tuple(decode(arguments)), keywords=decode(keywords))


def _tagged_result(result: Result) -> list[Any]:
    match result:
        case Returned(value):
            return ["value", encode(value)]
        case Raised(kind, text):
            return ["raised", kind, text]
        case Died(status):
            return ["died", f"the program ended ({status})"]


def _result(parts: Sequence[Any] | None, done: ExecResult) -> TestResult:
    match parts:
        case [_, "passed"]:
            return TestResult(passed=True)
        case [_, "failed", str(kind), str(text)]:
            return TestResult(passed=False, text=f"{kind}: {text}" if text else kind)
        case [_, "needs", *_]:
            return TestResult(passed=False, text="the calls depend too deeply on one another")
        case _:
            return TestResult(passed=False, text=f"the test did not finish ({done.status})")
