"""Decide whether conclusions follow from premises, in a worker that can be killed."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from envgym.errors import VerifierError
from envgym.verifiers.logic.formulas import Formula
from envgym.workers import WorkerFailedError, WorkerTimeoutError, shared_pool

__all__ = ["StepVerdict", "Validity", "check_steps"]

_PROVER = "envgym.verifiers.logic.prover"
_SECONDS = 20.0
"""Limit on all steps of a request in processor seconds, far above the time of the prover's own limit on work."""


class Validity(enum.StrEnum):
    """Outcome of checking a step."""

    FOLLOWS = "follows"
    DOES_NOT_FOLLOW = "does_not_follow"
    UNDECIDED = "undecided"
    """The prover reached its limit on work. Deterministic: the step is too large, and this is not an outage."""


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """Decision on one step."""

    validity: Validity
    where: str = ""
    """Case in which the premises hold and the conclusion does not; for propositional steps only, else empty."""


def check_steps(steps: Sequence[tuple[Sequence[Formula], Formula]]) -> list[StepVerdict]:
    """Decide for each pair of premises and a conclusion whether the conclusion follows.

    Blocks for milliseconds, and for longer where z3 has to work; asynchronous callers use a thread.

    Raises:
        VerifierError: the prover failed. This is missing data, not a step that does not follow.
    """
    if not steps:
        return []
    request = {"steps": [[[str(p) for p in premises], str(conclusion)] for premises, conclusion in steps]}
    try:
        verdicts = shared_pool().ask(_PROVER, request, _SECONDS).found["verdicts"]
    except (WorkerFailedError, WorkerTimeoutError) as error:
        raise VerifierError(f"the prover failed: {error}") from error
    return [StepVerdict(Validity(validity), where) for validity, where in verdicts]
