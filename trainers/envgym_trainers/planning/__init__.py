"""Arithmetic on a recipe before it runs: memory, time, sandboxes, disk, and what to change if it does not fit."""
