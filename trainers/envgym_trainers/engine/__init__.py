"""Engines: they sample tokens for many conversations at once."""
