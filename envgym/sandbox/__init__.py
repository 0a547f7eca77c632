"""Sandboxes, which run untrusted code."""
