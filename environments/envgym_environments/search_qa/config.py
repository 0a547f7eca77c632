"""Settings of ``SearchQA``."""

from __future__ import annotations

from typing import Literal, Self

import pydantic

from envgym.env.answers import MAX_FORMAT_WEIGHT
from envgym.env.chat_env import ChatEnv
from envgym_environments.search_qa.embeddings import BUILTIN_MODEL
from envgym_environments.search_qa.index import Retriever

__all__ = ["SearchConfig"]


class SearchConfig(ChatEnv.Config):
    """Settings of ``SearchQA``: the fictional world, or files; the search engine; the reward."""

    documents: int = pydantic.Field(default=500, ge=20, le=100_000, description="entities of the fictional world")
    world_seed: int = pydantic.Field(default=0, description="names the fictional world")
    distractors: int = pydantic.Field(
        default=0, ge=0, le=100_000, description="further documents that mention entities and answer nothing"
    )
    hops: tuple[Literal[1, 2, 3, 4, 5], ...] = pydantic.Field(
        default=(1, 2), min_length=1, description="facts that lead to an answer, drawn equally often"
    )
    set_share: float = pydantic.Field(
        default=0.0, ge=0, le=1, description="share of questions whose answer is a set; documents then list sets"
    )
    unanswerable_share: float = pydantic.Field(
        default=0.0, ge=0, le=1, description="share of questions that no document answers; right is 'unknown'"
    )
    corpus_file: str = pydantic.Field(
        default="", description=".jsonl corpus (id, title, text) instead of a fictional world"
    )
    retriever_url: str = pydantic.Field(
        default="", description="remote retriever in Search-R1's shape, e.g. http://127.0.0.1:8000/retrieve"
    )
    retriever_seconds: float = pydantic.Field(default=10.0, gt=0, le=25, description="deadline of a remote search")
    question_file: str = pydantic.Field(
        default="",
        description=".jsonl questions (question, answers) about the corpus or retriever",
    )
    held_out_file: str = pydantic.Field(
        default="", description="held-out questions; without it one in five of question_file is held out"
    )
    retriever: Retriever = pydantic.Field(
        default="bm25",
        description="what the search compares: words, or embeddings (pip install 'envgym[embeddings]')",
    )
    embedding_model: str = pydantic.Field(
        default=BUILTIN_MODEL,
        description="a sentence-transformers model: builtin:minilm, a folder, or a hub name",
    )
    top_k: int = pydantic.Field(default=1, ge=1, le=20, description="documents that a search returns")
    snippet_chars: int = pydantic.Field(
        default=300, ge=40, description="longest text of a document in a search result; open_document shows all"
    )
    grader: Literal["exact_match", "judge"] = pydantic.Field(
        default="exact_match", description="judge: an answer that does not match word by word is shown to a judge"
    )
    f1_weight: float = pydantic.Field(default=0.0, ge=0, le=1, description="share of the reward for F1")
    format_weight: float = pydantic.Field(
        default=0.0, ge=0, le=MAX_FORMAT_WEIGHT, description="share of the reward for fencing an answer"
    )

    @pydantic.model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.corpus_file and self.retriever_url:
            raise ValueError("corpus_file and retriever_url exclude each other")
        if self.retriever_url and self.retriever != "bm25":
            raise ValueError("retriever and retriever_url exclude each other")
        if bool(self.question_file) != bool(self.corpus_file or self.retriever_url):
            raise ValueError("question_file goes with corpus_file or retriever_url")
        if self.held_out_file and not self.question_file:
            raise ValueError("held_out_file goes with question_file")
        if self.set_share + self.unanswerable_share > 1:
            raise ValueError("set_share and unanswerable_share add up to more than 1")
        if self.f1_weight + self.format_weight > 1:
            raise ValueError("f1_weight and format_weight add up to more than 1")
        return self
