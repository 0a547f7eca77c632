"""Policies, which act in episodes."""
