"""Search and answer: fictional worlds or a corpus of files, behind a search engine."""

from envgym_environments.search_qa.env import SearchQA
from envgym_environments.search_qa.settings import SearchSettings

__all__ = ["SearchQA", "SearchSettings"]
