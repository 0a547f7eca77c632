"""Environments: the base class, and what an author builds one from."""
