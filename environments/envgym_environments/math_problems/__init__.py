"""Mathematics problems: procedural families, GSM8K and files, with an exact calculator."""

from envgym_environments.math_problems.env import MathProblems

__all__ = ["MathProblems"]
