"""Tests of untrusted programs: they run in a sandbox, and their results are judged outside it."""

from envgym.verifiers.code_tests.asserts import AssertSuite, Recording, TestResult, check_asserts, record_calls
from envgym.verifiers.code_tests.programs import Call, Died, Raised, Result, Returned, call_program, equal
from envgym.verifiers.code_tests.stdio import same_output

__all__ = [
    "AssertSuite",
    "Call",
    "Died",
    "Raised",
    "Recording",
    "Result",
    "Returned",
    "TestResult",
    "call_program",
    "check_asserts",
    "equal",
    "record_calls",
    "same_output",
]
