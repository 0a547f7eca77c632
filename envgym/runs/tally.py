"""What episodes have earned so far, and how they ended, in a line of progress."""

from __future__ import annotations

from collections import Counter

from envgym.records import Trajectory
from envgym.runs.table import rewards_text

__all__ = ["Tally"]


class Tally:
    """Counts episodes by environment; ``str`` gives ``sums 0.50 (25% cut: tokens) code 0.12``."""

    def __init__(self) -> None:
        self._rewards: dict[str, list[float]] = {}
        self._endings: dict[str, Counter[str]] = {}

    def add(self, trajectory: Trajectory) -> None:
        """Count an episode that has ended; one that failed has no reward."""
        rewards = self._rewards.setdefault(trajectory.env, [])
        self._endings.setdefault(trajectory.env, Counter())[trajectory.ending] += 1
        if not trajectory.failed:
            rewards.append(trajectory.reward)

    def __str__(self) -> str:
        means = {env: sum(made) / len(made) if made else None for env, made in sorted(self._rewards.items())}
        return rewards_text(means, self._endings)
