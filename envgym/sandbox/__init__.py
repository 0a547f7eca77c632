"""Sandboxes: where untrusted code runs."""
