"""Held-out evaluation, with intervals over problems and paired comparisons."""

from envgym.evaluate.intervals import Interval, mean_interval, mean_of, paired_gain
from envgym.evaluate.run import EnvScores, distinct, evaluate

__all__ = ["EnvScores", "Interval", "distinct", "evaluate", "mean_interval", "mean_of", "paired_gain"]
