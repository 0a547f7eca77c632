"""Training objectives, one file each. ``objectives`` finds them by name."""

from envgym_trainers.objectives.base import (
    AuxiliaryName,
    Member,
    Metrics,
    Needs,
    Objective,
    merge_metrics,
    objectives,
)

__all__ = [
    "AuxiliaryName",
    "Member",
    "Metrics",
    "Needs",
    "Objective",
    "merge_metrics",
    "objectives",
]
