"""Questions to answer by search, in fictional worlds or a corpus of files."""

from envgym_environments.search_qa.env import SearchQA

__all__ = ["SearchQA"]
