"""A gym for agentic post-training."""
