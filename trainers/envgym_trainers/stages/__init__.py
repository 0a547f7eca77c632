"""Stages: what a recipe runs."""
