"""Training objectives, one file each. ``objectives`` finds them by name."""

from envgym_trainers.objectives.base import Metrics, Needs, Objective, merge_metrics, objectives

__all__ = ["Metrics", "Needs", "Objective", "merge_metrics", "objectives"]
