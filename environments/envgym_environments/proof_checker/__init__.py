"""Prove a goal from premises; every step is checked."""

from envgym_environments.proof_checker.env import ProofChecker, ProofSettings

__all__ = ["ProofChecker", "ProofSettings"]
