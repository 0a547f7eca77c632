"""Runs: the stage, the folder, the progress and the report of one."""
