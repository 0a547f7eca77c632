"""Proofs of a goal from premises, with every step checked."""

from envgym_environments.proof_checker.env import ProofChecker

__all__ = ["ProofChecker"]
