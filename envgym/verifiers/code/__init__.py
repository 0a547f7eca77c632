"""Judge programs by running them in a sandbox and deciding outside it."""

from envgym.verifiers.code.asserts import AssertSuite, TestResult, check_asserts, record_calls
from envgym.verifiers.code.programs import Call, Died, Raised, Result, Returned, call_program, equal

__all__ = [
    "AssertSuite",
    "Call",
    "Died",
    "Raised",
    "Result",
    "Returned",
    "TestResult",
    "call_program",
    "check_asserts",
    "equal",
    "record_calls",
]
