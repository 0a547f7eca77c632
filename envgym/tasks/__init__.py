"""Tasks: made on demand, or read from files and data sets."""
