"""Models: loaded, made, saved."""
