"""A gym for agentic post-training. Importing it registers every environment with Gymnasium as ``envgym/<id>``."""

from envgym.env.registration import list_envs, make, register, register_in_gymnasium

__all__ = ["list_envs", "make", "register"]

register_in_gymnasium()
