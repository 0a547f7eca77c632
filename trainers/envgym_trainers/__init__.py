"""The trainer: rollouts in, better weights out."""
