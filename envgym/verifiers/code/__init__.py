"""Judge programs by running them in a sandbox and comparing results outside it."""

from envgym.verifiers.code.programs import Call, Died, Raised, Result, Returned, call_program, equal

__all__ = ["Call", "Died", "Raised", "Result", "Returned", "call_program", "equal"]
