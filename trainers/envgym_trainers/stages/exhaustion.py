"""End a run that has nothing left to learn: no sample has a signal in one step after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

__all__ = ["Exhaustion"]


class Exhaustion:
    """Counts the steps in a row that had nothing to learn from, and what became of their groups.

    Args:
        patience: number of such steps after which the run ends, at least 1.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._steps = 0
        self._groups: Counter[str] = Counter()

    def note(self, groups: Mapping[str, int], *, learnt: bool) -> None:
        """Count a step.

        Args:
            groups: number of groups by ``Signal``; other counts are ignored.
            learnt: whether any sample of the step had a signal; see ``Sample.has_signal``.
        """
        if learnt:
            self._steps = 0
            self._groups.clear()
        else:
            self._steps += 1
            self._groups.update(groups)

    @property
    def reason(self) -> str:
        """Why the run ends; ``""`` while it goes on."""
        if self._steps < self._patience:
            return ""
        steps = "one step" if self._steps == 1 else f"{self._steps} steps in a row"
        return f"nothing to learn from in {steps}: {self._fate()}"

    def _fate(self) -> str:
        solved, failed = self._groups["all_solved"], self._groups["all_failed"]
        if self._groups["kept"]:
            return "no reward differed within a group"
        if solved and failed:
            return f"{solved} groups were solved by every member and {failed} by none"
        if solved or failed:
            return f"every group was {'solved' if solved else 'failed'}"
        return "no group had two members left to compare; the others failed, or were truncated and masked"

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"steps": self._steps, "groups": dict(self._groups)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state()``."""
        self._steps, self._groups = state["steps"], Counter(state["groups"])
