"""Why episodes failed: reasons that differ in numbers and names alone are one, with a count and an example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from envgym.records import Trajectory
from envgym.runs.table import wrapped

__all__ = ["Failures"]

_VARYING = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|\b(?=\w*\d)[\w.:-]+")
"""Parts of a message that change from one episode to the next: what is quoted, and words with digits in them."""
_KEY_CHARS = 300
_EXAMPLE_CHARS = 500
_SHOWN = 5


@dataclass(slots=True, kw_only=True)
class _Reason:
    env: str
    cause: str
    """The error's type."""
    example: str
    """Message of the first episode that failed so."""
    task: str
    """Task of that episode."""
    count: int = 0


class Failures:
    """Groups the episodes that failed by environment and reason."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, str], _Reason] = {}

    def add(self, trajectory: Trajectory) -> None:
        """Count an episode, if it failed."""
        if not trajectory.failed:
            return
        outcome = trajectory.outcome
        key = trajectory.env, _VARYING.sub("…", outcome.reason[:_KEY_CHARS])
        example = outcome.reason.removeprefix(f"{outcome.cause}:").strip()[:_EXAMPLE_CHARS]
        new = _Reason(env=trajectory.env, cause=outcome.cause, example=example, task=trajectory.task.id)
        self._reasons.setdefault(key, new).count += 1

    def records(self, env: str) -> list[dict[str, Any]]:
        """Return the reasons of one environment as JSON values, the most common first."""
        return [
            {"error": r.cause, "count": r.count, "example": r.example, "task": r.task} for r in self._sorted(env)
        ]

    def lines(self) -> Iterator[str]:
        """Yield a line for each of the most common reasons of every environment."""
        for env in sorted({env for env, _ in self._reasons}):
            reasons = self._sorted(env)
            total = sum(reason.count for reason in reasons)
            yield f"{env}: {total} failed episode{'s' if total > 1 else ''}, which count nowhere, because:"
            for r in reasons[:_SHOWN]:
                yield wrapped(f"{r.count} × {r.cause}: {' '.join(r.example.split())} (e.g. task {r.task})", "  ")
            if rest := reasons[_SHOWN:]:
                yield f"  {sum(r.count for r in rest)} × {len(rest)} other reasons; --json lists them all"

    def _sorted(self, env: str) -> list[_Reason]:
        return sorted((r for r in self._reasons.values() if r.env == env), key=lambda r: -r.count)
