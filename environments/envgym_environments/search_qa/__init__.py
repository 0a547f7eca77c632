"""Search and answer: fictional worlds or a corpus of files, behind a search engine."""

from envgym_environments.search_qa.env import SearchQA

__all__ = ["SearchQA"]
