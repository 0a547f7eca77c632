"""The groups that one step collected, and what there is to count of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from envgym.env.clock import loop_clock
from envgym.records import OutcomeKind, Trajectory
from envgym.rollout.collector import Group
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.truncation import masked

__all__ = ["Disturbances", "StepGroups"]


class Disturbances:
    """What blocked the event loop, and what was abandoned, since this was made."""

    def __init__(self) -> None:
        self._clock = loop_clock()
        self._earlier, self._abandoned = dict(self._clock.culprits), Counter(self._clock.abandoned)

    @property
    def blockers(self) -> dict[str, float]:
        """Seconds for which the event loop was blocked, by the function that did it, with file and line."""
        seconds = {who: total - self._earlier.get(who, 0.0) for who, total in self._clock.culprits.items()}
        return {who: value for who, value in seconds.items() if value > 0}

    @property
    def abandoned(self) -> Counter[str]:
        """Number of times that authors' code went on although it was cancelled, by the function."""
        return self._clock.abandoned - self._abandoned


@dataclass(slots=True, kw_only=True)
class StepGroups:
    """Groups that one step collected."""

    groups: list[Group] = field(default_factory=list)
    """Groups to train on, those carried over from an earlier step included."""
    generated: list[Group] = field(default_factory=list)
    """Every group played in this step."""
    counters: dict[str, Counter[str]] = field(default_factory=dict)
    """Per environment: groups generated, kept, all_solved, all_failed, missing, surplus, and in asynchronous
    training stale: dropped, as the engine told of weights older than those current at their beginning."""
    masked: Counter[str] = field(default_factory=Counter)
    """Trajectories that a limit cut and the recipe keeps out of training, by that limit; roles count too."""
    blockers: dict[str, float] = field(default_factory=dict)
    """Seconds for which the event loop was blocked, by the function that did it, with file and line."""
    abandoned: Counter[str] = field(default_factory=Counter)
    """Number of times that authors' code went on although it was cancelled, by the function."""

    @property
    def everyone(self) -> Iterator[Trajectory]:
        """Every trajectory played in this step, those nested in others included."""
        return (t for group in self.generated for played in group.by_role().values() for t in played)

    @property
    def turn_tokens(self) -> list[int]:
        """Number of tokens that each turn sampled, over ``everyone``."""
        return [len(turn.tokens.completion_ids) for t in self.everyone for turn in t.turns if turn.tokens]

    @property
    def trajectories(self) -> list[Trajectory]:
        """Every trajectory played in this step."""
        return [t for group in self.generated for t in group.trajectories]

    def conclude(self, recipe: ReinforcementRecipe, disturbances: Disturbances) -> None:
        """Count what the recipe masks and what happened meanwhile, at the end of the step."""
        # Environments are filled in any order; records are the same whichever was first.
        place = {label: i for i, label in enumerate(self.counters)}
        self.generated.sort(key=lambda group: place[group.env])
        self.masked.update(t.outcome.cause for t in self.everyone if masked(recipe.truncated, t))
        self.blockers, self.abandoned = disturbances.blockers, disturbances.abandoned

    def mean_rewards(self) -> dict[str, float]:
        """Return the mean reward of the trajectories played, before any control replaced it.

        Returns:
            means by environment, and by ``environment/role`` for nested episodes.
        """
        rewards: dict[str, list[float]] = {}
        for group in self.generated:
            for role, played in group.by_role().items():
                name = f"{group.env}/{role}" if role else group.env
                rewards.setdefault(name, []).extend(t.reward for t in played if not math.isnan(t.reward))
        return {label: sum(v) / len(v) for label, v in sorted(rewards.items()) if v}

    def endings(self) -> dict[str, Counter[str]]:
        """Return the numbers of episodes by environment and ``Trajectory.ending``."""
        found: dict[str, Counter[str]] = {}
        for group in self.generated:
            found.setdefault(group.env, Counter()).update(t.ending for t in group.trajectories)
        return found

    def metrics(self) -> dict[str, float]:
        """Return every count and mean, by flat name."""
        played = self.trajectories
        row = {f"reward/{label}": value for label, value in self.mean_rewards().items()}
        for label, counts in self.counters.items():
            row |= {f"groups/{label}/{name}": float(n) for name, n in counts.items()}
        for label, endings in self.endings().items():
            row |= {f"ended/{label}/{ending}": float(n) for ending, n in sorted(endings.items())}
        row["episodes"] = float(len(played))
        row["episodes_failed"] = float(sum(t.failed for t in played))
        row["episodes_truncated"] = float(sum(t.outcome.kind is OutcomeKind.TRUNCATED for t in played))
        endings = Counter(f"{t.outcome.kind.value}/{t.outcome.cause}" for t in played if t.outcome.cause)
        row |= {f"episodes_{ending}": float(n) for ending, n in sorted(endings.items())}
        row |= {f"episodes_masked/{limit}": float(n) for limit, n in sorted(self.masked.items())}
        row["loop_stalled_seconds"] = sum(self.blockers.values())
        row["abandoned"] = float(self.abandoned.total())
        row["turns_mean"] = sum(len(t.turns) for t in played) / max(1, len(played))
        for name in ("tool_calls", "tool_errors", "tool_malformed"):
            row[name] = sum(turn.metrics.get(name, 0.0) for t in played for turn in t.turns)
        return row
