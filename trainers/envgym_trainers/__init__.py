"""The trainer: stages, learner, objectives, models and engines."""
