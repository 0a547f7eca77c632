"""Engines, which sample tokens for many conversations concurrently."""
