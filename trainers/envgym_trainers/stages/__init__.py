"""Stages, the kinds of training that recipes run."""
