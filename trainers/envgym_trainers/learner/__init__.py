"""The learner, which turns trajectories into updates of the weights."""
