"""Training objectives, one file each. ``envgym.registry.objectives`` finds them by name."""

from envgym_trainers.objectives.base import Metrics, Needs, Objective, merge_metrics

__all__ = ["Metrics", "Needs", "Objective", "merge_metrics"]
