"""The quality gate that an environment must pass before anything is trained on it."""

from envgym.check.checks import CHECKS, Check, Subject

__all__ = ["CHECKS", "Check", "Subject"]
