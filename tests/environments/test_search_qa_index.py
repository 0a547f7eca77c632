"""The search engine finds the document that a question needs, quickly and always the same."""

from __future__ import annotations

import random
import time

import pytest

from envgym.errors import DataError
from envgym_environments.search_qa import SearchQA
from envgym_environments.search_qa.index import Index
from envgym_environments.search_qa.world import Document, make_world


@pytest.mark.parametrize(
    "settings",
    [{"documents": 500}, {"documents": 2000}, {"documents": 2000, "set_relations": True, "distractors": 2000}],
    ids=["default", "large", "crowded"],
)
def test_an_entitys_own_document_comes_first(settings: dict[str, int]) -> None:
    """People share parts of their names, and other documents mention them."""
    world = make_world(7, **settings)  # type: ignore[arg-type]
    index = Index(world.documents)
    names = random.Random(0).sample(sorted(world.facts), 400)
    assert [index.search(name, 1)[0].title for name in names] == names


def test_recall_at_3_of_one_hop_questions_is_at_least_95_percent() -> None:
    """The query is the question as asked; the world has 2,000 documents."""
    env = SearchQA(documents=2000, hops=(1,))
    index = env._index()
    tasks = env.task_list("train")[:600]
    found = [t.reference["path"][-1] in {d.title for d in index.search(t.messages[-1].content, 3)} for t in tasks]
    assert sum(found) / len(found) >= 0.95


def test_a_query_takes_under_two_milliseconds() -> None:
    world = make_world(0, 2000)
    index = Index(world.documents)
    names = sorted(world.facts)[:200]
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for name in names:
            index.search(name, 3)
        best = min(best, (time.perf_counter() - started) / len(names))
    assert best < 0.002


def test_ties_keep_the_order_of_the_corpus() -> None:
    documents = [Document(title=f"Note {i}", text="the same words") for i in range(20)]
    assert Index(documents).search("words", 5) == documents[:5]


def test_titles_are_found_whatever_their_case_and_however_often() -> None:
    documents = [Document(title="Dufil", text="one"), Document(title="DUFIL ", text="two")]
    assert Index(documents).by_title(" dufil") == documents
    assert Index(documents).by_title("") == []


def test_a_corpus_without_words_is_refused() -> None:
    with pytest.raises(DataError, match="no words"):
        Index([Document(title="?", text="!")])


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    Index(make_world(0, 100).documents).search("Dufil", 3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("documents", [20, 137, 3000])
def test_worlds_are_reproducible_and_titles_unique(documents: int) -> None:
    first, second = (make_world(5, documents, distractors=50) for _ in range(2))
    assert first.documents == second.documents
    assert first.documents != make_world(6, documents, distractors=50).documents
    assert len({d.title.casefold() for d in first.documents}) == len(first.documents)
    assert abs(len(first.documents) - documents - 50) <= 2
