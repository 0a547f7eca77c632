"""Plugins: what one is, and how it is found by name."""
