"""Prove a goal from premises; every step is checked."""

from envgym_environments.proof_checker.env import ProofChecker

__all__ = ["ProofChecker"]
