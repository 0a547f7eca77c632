"""Rollouts: one episode, many concurrent episodes, and the mix that tasks are drawn from."""
