"""The quality gate: what an environment must do before anything is trained on it."""

from envgym.quality.checks import CHECKS, Check, Subject

__all__ = ["CHECKS", "Check", "Subject"]
