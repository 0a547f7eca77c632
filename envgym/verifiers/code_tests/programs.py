"""Call a function of an untrusted program: input goes into the sandbox, results are judged outside it."""

from __future__ import annotations

import decimal
import fractions
import functools
import importlib.resources
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from envgym.sandbox.interface import ExecResult, Sandbox, Status
from envgym.verifiers.code_tests.tagged_json import MalformedError, Opaque, decode, encode

__all__ = [
    "Call",
    "Died",
    "Raised",
    "Result",
    "Returned",
    "answers",
    "call_program",
    "equal",
    "guest_source",
    "tagged_call",
]

MAX_PROGRAM_CHARS = 65_536
_REAL = (int, float, decimal.Decimal, fractions.Fraction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Arguments of one call."""

    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Returned:
    """The call returned ``value``."""

    value: Any


@dataclass(frozen=True, slots=True)
class Raised:
    """The call, or loading the program, raised."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Died:
    """The program ended, or was ended, before the call was answered."""

    status: Status


Result = Returned | Raised | Died


@functools.cache
def guest_source(name: str) -> str:
    """Return the text that runs in the sandbox: the parts all guests share, then the guest file ``name``."""
    ours, sandbox = map(importlib.resources.files, ("envgym.verifiers.code_tests", "envgym.sandbox"))
    shared = (
        ours / "tagged_json.py",
        ours / "guest_channel.py",
        sandbox / "source_file.py",
        ours / "guest_module.py",
    )
    return "\n\n".join(part.read_text(encoding="utf-8") for part in (*shared, ours / name))


def tagged_call(call: Call) -> list[Any]:
    """Return a call as tagged JSON: its arguments and its keywords."""
    return [encode(list(call.arguments)), encode(dict(call.keywords))]


async def call_program(
    sandbox: Sandbox,
    program: str,
    entry_point: str,
    calls: Sequence[Call],
    *,
    preamble: str = "",
    call_seconds: float = 2.0,
    restarts: int = 0,
) -> list[Result]:
    """Load ``program`` once and call ``entry_point`` for each of ``calls``, in order, in one process.

    A program may keep state between calls, as it may in any test file that calls it twice.

    Args:
        sandbox: sandbox for the program; its own deadline bounds all calls together.
        program: source text; if it is too long or not Python, every call raises.
        entry_point: name of the function.
        calls: arguments of each call.
        preamble: source that runs before the program, in the same module.
        call_seconds: limit on each call in seconds of processor time.
        restarts: number of times to continue with the remaining calls after one that killed the process.

    Returns:
        one result per call.

    Raises:
        SandboxError: the sandbox failed, not the program.
    """
    if len(program) > MAX_PROGRAM_CHARS:
        return [Raised("ValueError", f"the program is longer than {MAX_PROGRAM_CHARS} characters")] * len(calls)
    results: dict[int, Result] = {}
    for _ in range(restarts + 1):
        todo = [i for i in range(len(calls)) if i not in results]
        if not todo:
            break
        request = {
            "preamble": preamble,
            "program": program,
            "entry_point": entry_point,
            "calls": [[i, *tagged_call(calls[i])] for i in todo],
            "call_seconds": call_seconds,
        }
        done = await sandbox.run_python(guest_source("guest_program.py"), stdin=json.dumps(request).encode())
        answered = _read(done)
        if -1 in answered:
            return [answered[-1]] * len(calls)
        results.update((i, answered[i]) for i in todo if i in answered)
        missing = [i for i in todo if i not in answered]
        if missing:
            results[missing[0]] = Died(done.status)
    return [results.get(i, Died(done.status)) for i in range(len(calls))]


def equal(expected: Any, actual: Any, tolerance: float = 0.0) -> bool:
    """Return whether a result equals the expected one under Python's ``==``, with two exceptions.

    Two NaNs are equal, and floats may differ by ``tolerance``, relative and absolute.
    """
    if isinstance(expected, Opaque) or isinstance(actual, Opaque):
        return False
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(actual, (list, tuple))
            and isinstance(expected, list) == isinstance(actual, list)
            and len(expected) == len(actual)
            and all(equal(e, a, tolerance) for e, a in zip(expected, actual, strict=True))
        )
    if isinstance(expected, dict):
        return (
            isinstance(actual, dict)
            and expected.keys() == actual.keys()
            and all(equal(value, actual[key], tolerance) for key, value in expected.items())
        )
    if isinstance(expected, _REAL) and isinstance(actual, _REAL):
        return _equal_numbers(expected, actual, tolerance)
    return bool(expected == actual)


def _equal_numbers(expected: Any, actual: Any, tolerance: float) -> bool:
    if expected == actual or (expected != expected and actual != actual):
        return True
    if not tolerance or not (isinstance(expected, float) or isinstance(actual, float)):
        return False
    try:
        return math.isclose(expected, actual, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:
        return False


def answers(done: ExecResult) -> Iterator[list[Any]]:
    """Yield a guest's answers, line by line; other lines are skipped, since programs can write there too."""
    for line in done.stdout.splitlines():
        try:
            parts = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(parts, list):
            yield parts


def _read(done: ExecResult) -> dict[int, Result]:
    """Return the results by index; the first for an index counts."""
    answered: dict[int, Result] = {}
    for parts in answers(done):
        match parts:
            case [int(index), "value", data]:
                answered.setdefault(index, _value(data))
            case [int(index), "raised", str(kind), str(text)]:
                answered.setdefault(index, Raised(kind, text))
    return answered


def _value(data: Any) -> Result:
    try:
        return Returned(decode(data))
    except MalformedError as error:
        return Raised("MalformedError", str(error))
