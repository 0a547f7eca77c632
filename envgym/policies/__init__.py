"""Policies: who acts in an episode."""
