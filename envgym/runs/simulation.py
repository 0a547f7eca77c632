"""Simulated training, for capacity planning: what is simulated, and the table of what came out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from envgym.runs.table import fitted

__all__ = ["SimulatedLoad", "simulation_table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedLoad:
    """Rates of the model that is simulated; environments, tools and sandboxes are real."""

    tokens_per_second: float
    """Tokens that the engine samples in a second, over all conversations; they share it equally."""
    step_seconds: float
    """Seconds of learning in a step."""
    steps: int
    """Number of steps, at least 2. The first, in which everything begins, is not measured."""
    conversation_tokens_per_second: float = math.inf
    """The same for a conversation that has the engine for itself."""
    publish_seconds: float = 0.0
    """Seconds to hand new weights to the engine."""
    tokens_per_turn: float = 0.0
    """Mean number of tokens of a turn, drawn exponentially; 0 for a quarter of the characters of what is said."""
    signal_share: float = 1.0
    """Share of the groups whose rewards differ, where dynamic sampling replaces the others."""
    policy: str = "gold"
    """Who acts, as in evaluation."""


def simulation_table(report: dict[str, Any]) -> str:
    """Return the report of a simulation as plain text."""
    seconds, shares = report["episode_seconds"], report["shares"]
    staleness = ", ".join(f"{age}: {share:.0%}" for age, share in report["staleness"].items())
    rows = [
        ["steps an hour", f"{report['steps_per_hour']:,.0f}"],
        ["episodes an hour", f"{report['episodes_per_hour']:,.0f} ({report['episodes_failed']} failed)"],
        ["tokens a second", f"{report['tokens_per_second']:,.0f} ({shares['engine_capacity']:.0%} of the engine)"],
        ["episodes in flight", f"{report['in_flight']['mean']:,.0f}, {report['in_flight']['max']:,} at most"],
        ["of these sampling", f"{report['in_flight']['sampling']:,.0f}"],
        ["trainer waits", f"{shares['trainer_waits']:.0%} of the time"],
        ["engine idle", f"{shares['engine_idle']:.0%} of the time"],
        ["nothing in flight", f"{shares['collection_idle']:.0%} of the time"],
        ["seconds of an episode", f"{seconds['mean']:.2f}; median {seconds['p50']:.2f}, 99% {seconds['p99']:.2f}"],
        ["of these sampling", f"{seconds['sampling']:.2f}"],
        ["of these environment", f"{seconds['environment']:.2f} (tools, sandboxes, scoring)"],
        ["staleness of tokens", staleness],
    ]
    return fitted([["simulated training", f"{report['steps']} steps in {report['seconds']:.1f} s"], *rows])
