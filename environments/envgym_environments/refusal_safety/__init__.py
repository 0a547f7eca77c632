"""Harmful requests and their benign twins, for an assistant with an inbox, files, a bank and web forms."""

from envgym_environments.refusal_safety.env import RefusalSafety

__all__ = ["RefusalSafety"]
