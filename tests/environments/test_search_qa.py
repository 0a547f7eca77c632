"""``search_qa``: what is right, what is not, and that nothing but searching leads there."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

import pytest

from envgym.errors import DataError, RecipeError
from envgym.records import Message, Task
from envgym_environments.search_qa import SearchQA
from envgym_environments.search_qa.questions import draw_question
from envgym_environments.search_qa.world import make_world

QUESTION = Message(role="user", content="What is the home of Kabi Kekun?")
ONE = Task(id="one", split="train", messages=(QUESTION,), reference={"answers": ["Port Dufil", "Dufil"]})
SET = Task(
    id="set", split="train", messages=(QUESTION,), reference={"answers": ["Ama Bo", "Cy Du"], "all_of": True}
)
HARD = {
    "hops": (1, 2, 3, 4, 5),
    "documents": 1000,
    "set_share": 0.3,
    "unanswerable_share": 0.2,
    "distractors": 800,
}


@pytest.mark.parametrize(
    ("final", "exact"),
    [
        ("<answer>Dufil</answer>", 1),
        ("It is <answer> the port DUFIL. </answer>", 1),
        ("\\boxed{Dufil}", 1),
        ("<answer>Kulax</answer> or rather <answer>Dufil</answer>", 1),
        ("<answer>Dufil</answer> or rather <answer>Kulax</answer>", 0),
        ("<answer>Dufil or Kulax or Beful or Mokol</answer>", 0),
        ("<answer>Dufil, Port Dufil</answer>", 0),
        ("<answer></answer>", 0),
        ("<answer>the</answer>", 0),
        ("Dufil", 0),
        ("<tool_response>Dufil</tool_response>", 0),
        ("", 0),
        (QUESTION.content, 0),
    ],
)
def test_one_answer_must_match_exactly(play: Any, final: str, exact: int) -> None:
    assert play(SearchQA(), ONE, final).score.value == exact


@pytest.mark.parametrize(
    ("final", "exact", "f1"),
    [
        ("Ama Bo; Cy Du", 1, 1),
        ("cy du, ama bo", 1, 1),
        ("Ama Bo; Ama Bo; Cy Du", 1, 1),
        ("Ama Bo", 0, 2 / 3),
        ("Ama Bo; Cy Du; Eve Fo", 0, 4 / 5),
        ("; ;", 0, 0),
        ("Bo Ama; Du Cy", 0, 0),
    ],
)
def test_a_set_must_match_in_full_and_in_any_order(play: Any, final: str, exact: int, f1: float) -> None:
    score = play(SearchQA(f1_weight=0.5), SET, f"<answer>{final}</answer>").score
    assert score.accuracy == exact
    assert score.components["f1"] == pytest.approx(f1)
    assert score.value == pytest.approx(0.5 * exact + 0.5 * f1)


def test_naming_everything_earns_little_even_by_f1(play: Any) -> None:
    env = SearchQA(f1_weight=0.5)
    towns = env._fiction()[0].names["town"]
    task = next(t for t in env.task_list("train")[:100] if t.reference["answers"][0] in towns)
    score = play(env, task, f"<answer>{' or '.join(towns)}</answer>").score
    assert score.components["exact_match"] == 0
    assert score.value < 0.05


def test_what_a_tool_shows_is_no_answer(play: Any) -> None:
    env = SearchQA()
    task = next(t for t in env.task_list("train")[:50] if t.difficulty == 1)
    (path,), (answer,) = task.reference["path"], task.reference["answers"]
    trajectory = play(env, task, ("search", {"query": path}), "there")
    assert answer in trajectory.turns[1].messages[0].content
    assert trajectory.score.value == 0


@pytest.mark.parametrize("settings", [{}, HARD, {"documents": 20}], ids=["default", "hard", "tiny"])
def test_the_scripted_searcher_reads_every_answer_before_it_gives_it(play_gold: Any, settings: Any) -> None:
    """It scores the maximum with one document a search, and it has seen what it says."""
    env = SearchQA(**settings)
    for split in ("train", "held_out"):
        for task in env.task_list(split)[:60]:
            trajectory = play_gold(env, task)
            assert trajectory.score.value == 1, task
            seen = trajectory.turns[-1].messages[0].content
            if task.metadata["kind"] != "unanswerable":
                assert all(answer in seen for answer in task.reference["answers"]), task


@pytest.mark.parametrize("settings", [{}, HARD], ids=["default", "hard"])
def test_no_question_holds_its_answer(settings: Any) -> None:
    for task in SearchQA(**settings).task_list("train")[:400]:
        asked = " ".join(m.content for m in task.messages if m.role == "user")
        assert not any(answer in asked for answer in task.reference["answers"])


def test_guessing_from_other_questions_finds_at_most_one_in_twenty() -> None:
    """The best guess without a search: the answer most often right for the same chain of relations."""
    env = SearchQA()

    def chain(task: Task) -> str:
        return task.messages[-1].content.rsplit(" of ", 1)[0]

    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for task in env.task_list("train")[:4000]:
        answers[chain(task)][task.reference["answers"][0]] += 1
    held_out = env.task_list("held_out")[:1000]
    right = sum(answers[chain(t)].most_common(1)[0][0] in t.reference["answers"] for t in held_out)
    assert right / len(held_out) <= 0.05


def test_splits_share_the_world_and_no_question() -> None:
    env = SearchQA(documents=100)
    questions = {s: {t.messages[-1].content for t in env.task_list(s)[:2000]} for s in ("train", "held_out")}
    assert not questions["train"] & questions["held_out"]
    assert len(questions["train"]) > 2 * len(questions["held_out"]) > 100


def test_default_tasks_are_many_and_their_prompts_short() -> None:
    tasks = SearchQA().task_list("train")[:5000]
    assert len({t.messages[-1].content for t in tasks}) > 2000
    assert all(sum(len(m.content) for m in t.messages) < 160 for t in tasks)


def test_searching_for_nothing_or_opening_nothing_is_answered(play: Any) -> None:
    calls = [("search", {"query": q}) for q in ("", "?!", "qqqq", "x" * 10_000)]
    trajectory = play(SearchQA(), ONE, *calls, ("open_document", {"title": "Nobody"}), "<answer>Dufil</answer>")
    shown = [turn.messages[0].content for turn in trajectory.turns[1:]]
    assert shown[:4] == ["no document matches"] * 4
    assert shown[4] == "error: no document has the title 'Nobody'"
    assert trajectory.score.value == 1


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"hops": [6]}, "hops"),
        ({"hops": []}, "hops"),
        ({"set_share": 0.7, "unanswerable_share": 0.7}, "add up to more than 1"),
        ({"f1_weight": 1.0, "format_weight": 0.1}, "add up to more than 1"),
        ({"corpus_file": "a.jsonl"}, "question_file goes with"),
        ({"question_file": "a.jsonl"}, "question_file goes with"),
        ({"held_out_file": "a.jsonl"}, "held_out_file goes with"),
        (
            {"corpus_file": "a.jsonl", "retriever_url": "http://localhost", "question_file": "b.jsonl"},
            "exclude each other",
        ),
        ({"top-k": 3}, "did you mean 'top_k'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: Any, fault: str) -> None:
    with pytest.raises(RecipeError, match=fault):
        SearchQA(**settings)


def test_a_world_without_such_questions_says_so() -> None:
    with pytest.raises(DataError, match="no unanswerable question of 2 hops"):
        draw_question(random.Random(0), make_world(0, 20), 2, "unanswerable")
