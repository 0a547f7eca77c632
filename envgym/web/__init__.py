"""Requests to servers: one rule for what is an answer, what is tried again, and what is missing data."""
