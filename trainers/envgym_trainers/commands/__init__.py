"""Commands of the trainer. ``envgym --help`` imports them: import what is heavy inside the functions."""
