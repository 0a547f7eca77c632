"""Search and answer: fictional worlds or a corpus of files, behind a search engine."""

from envgym_environments.search_qa.env import SearchQA, SearchSettings

__all__ = ["SearchQA", "SearchSettings"]
