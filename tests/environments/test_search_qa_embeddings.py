"""Search by meaning, with a real model from the package index."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from envgym.errors import UserError
from envgym_environments.search_qa import SearchQA
from envgym_environments.search_qa.embeddings import _load
from envgym_environments.search_qa.index import Index
from envgym_environments.search_qa.world import Document

_CORPUS = [
    Document(title="Tides", text="The moon pulls the sea, and the water rises twice a day."),
    Document(title="Bread", text="Flour, yeast and an oven make a loaf."),
    Document(title="Felines", text="A kitten purrs when it is stroked."),
    Document(title="Locomotives", text="An engine pulls carriages along rails."),
]


@pytest.mark.parametrize(
    ("query", "title"), [("my cat", "Felines"), ("railway trains", "Locomotives"), ("how to bake", "Bread")]
)
def test_documents_are_found_without_a_word_in_common(query: str, title: str) -> None:
    """Which is what words cannot do."""
    assert Index(_CORPUS, "embeddings").search(query, 1)[0].title == title
    assert Index(_CORPUS).search(query, 1) == []


def test_nothing_is_found_for_nothing() -> None:
    assert Index(_CORPUS, "embeddings").search("  ", 3) == []


def test_an_entitys_own_document_is_among_the_first(play: Any, play_gold: Any) -> None:
    """Names of a fictional world mean nothing, so this is the hardest case; the expert still solves it."""
    env = SearchQA(documents=60, hops=(1,), retriever="embeddings", top_k=3)
    tasks = env.task_list("train")[:20]
    found = [
        play(env, task, ("search", {"query": task.reference["path"][-1]}), "x").turns[1].messages[0].content
        for task in tasks
    ]
    hits = [task.reference["path"][-1] in text for task, text in zip(tasks, found, strict=True)]
    assert sum(hits) >= 18
    assert play_gold(env, tasks[0]).score.value == 1


@pytest.mark.parametrize(
    ("model", "complaint"), [("./nowhere", "no such folder"), (".", "no sentence-transformers model there")]
)
def test_a_model_that_is_not_there_is_named(
    model: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before an episode begins."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"embedding_model '{model}': {complaint}"):
        SearchQA(retriever="embeddings", embedding_model=model).task_list("train")


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    _load.cache_clear()
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"pip install 'envgym\[embeddings\]'"):
        Index(_CORPUS, "embeddings")
