"""The quality gate: what an environment must do before anything is trained on it."""

from envgym.check.checks import CHECKS, Check, Subject

__all__ = ["CHECKS", "Check", "Subject"]
