"""Rollouts: one episode, many at once, and the mix they are drawn from."""
