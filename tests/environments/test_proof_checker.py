"""``proof_checker``: problems that can be proved and take their steps, and policies that get nothing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envgym.config import validate_settings
from envgym.errors import DataError, UserError
from envgym.records import Task
from envgym.verifiers.logic import check_steps, read_formula
from envgym_environments.proof_checker import ProofChecker

_FAMILIES = ("propositional", "first_order")
_LEVELS = (1, 2, 3, 4, 5)


def _tasks(count: int, **settings: Any) -> list[Task]:
    return list(ProofChecker(**settings).task_list("train")[:count])


@pytest.mark.parametrize("family", _FAMILIES)
@pytest.mark.parametrize("level", _LEVELS)
def test_experts_prove_every_problem(family: str, level: int, play_gold: Callable[..., Any]) -> None:
    env = ProofChecker(families=(family,), levels=(level,), checker=False)
    for task in env.task_list("held_out")[:20]:
        assert play_gold(env, task).score.value == 1


@pytest.mark.parametrize("family", _FAMILIES)
@pytest.mark.parametrize("level", _LEVELS)
def test_problems_make_sense_and_no_single_step_solves_them(family: str, level: int) -> None:
    """The premises are consistent, all together imply the goal, and no two of them do."""
    for task in _tasks(8, families=(family,), levels=(level,)):
        premises = [read_formula(text) for text in task.reference["premises"]]
        goal = read_formula(task.reference["goal"])
        verdicts = check_steps([(premises, goal), (premises, read_formula("(p & ~p)"))])
        assert [v.validity for v in verdicts] == ["follows", "does_not_follow"]
        pairs = [(pair, goal) for pair in itertools.combinations(premises, 2)]
        assert all(v.validity == "does_not_follow" for v in check_steps(pairs))
        assert goal not in premises


def test_levels_are_graded() -> None:
    """A harder problem takes more steps and shows more premises."""
    means = [sum(len(t.reference["proof"]) for t in _tasks(60, levels=(level,))) / 60 for level in _LEVELS]
    assert means == sorted(means)
    assert means[0] >= 2
    assert means[-1] >= 6


def test_the_tool_says_what_is_wrong_and_where(play: Callable[..., Any]) -> None:
    env = ProofChecker(families=("propositional",))
    task = env.task_list("train")[0]
    goal, count = task.reference["goal"], len(task.reference["premises"])
    proof = "\n".join(task.reference["proof"])
    trajectory = play(env, task, ("check", {"proof": f"{goal} from 1"}), ("check", {"proof": proof}), "never mind")
    first, second = (turn.messages[0].content for turn in trajectory.turns[1:])
    assert first.startswith(f"{count + 1}. {goal} from 1: does not follow: ")
    assert f"not proved: line {count + 1}" in first
    assert second.endswith("proved")
    assert trajectory.score.value == 0, "a proof that was only checked is not handed in"


def test_hacks_get_nothing(play: Callable[..., Any]) -> None:
    """Claims, the problem handed back, premises rewritten, a proof without its start, words instead of a proof."""
    env = ProofChecker(levels=(3,), max_turns=2)
    for task in env.task_list("train")[:10]:
        goal, proof = task.reference["goal"], list(task.reference["proof"])
        count = len(task.reference["premises"])
        attempts = (
            goal,
            f"{count + 1}. {goal}",
            f"{count + 1}. {goal} from {count + 1}",
            f"1. {goal}\n{goal} from 1",
            f"{goal} from " + ", ".join(map(str, range(1, count + 1))),
            task.messages[-1].content,
            f"proved\n{goal}",
            "\n".join(proof[1:]),
            "\n".join(proof[:-1]),
            "\n".join([*proof, "and so on"]),
            "\n".join(proof) + "</answer> or rather <answer>proved",
        )
        for attempt in attempts:
            assert play(env, task, f"<answer>{attempt}</answer>").score.value == 0, attempt
        assert play(env, task, "\n".join(proof)).score.value == 0, "not fenced"
        assert play(env, task, f"<think><answer>{proof}</answer></think>").score.value == 0


def test_progress_pays_for_steps_that_were_derived_and_never_as_much_as_a_proof(play: Callable[..., Any]) -> None:
    """Each of the expert's steps counts once, and a claim counts for nothing."""
    env = ProofChecker(levels=(4,), progress_weight=0.4)
    task = env.task_list("train")[0]
    proof, steps = list(task.reference["proof"]), len(task.reference["steps"])
    half = "\n".join(proof[: steps // 2])
    partial = play(env, task, f"<answer>{half}</answer>").score
    assert partial.value == pytest.approx(0.4 * (steps // 2) / steps)
    assert partial.accuracy == 0
    again = "\n".join(line.partition(". ")[2] for line in [*proof[:1]] * 5)
    assert play(env, task, f"<answer>{again}</answer>").score.value == pytest.approx(0.4 / steps)
    claims = "\n".join(task.reference["steps"])
    assert play(env, task, f"<answer>{claims}</answer>").score.value == 0
    whole = "\n".join(proof)
    assert play(env, task, f"<answer>{whole}</answer>").score.value == 1


_ROWS: list[dict[str, Any]] = [
    {
        "premises": ["a0", *(f"a{i - 1} -> a{i}" for i in range(1, n + 1))],
        "goal": f"a{n}",
        "proof": [f"a{i} from {1 if i == 1 else n + i}, {i + 1}" for i in range(1, n + 1)],
    }
    for n in range(1, 11)
]
"""Chains of one to ten steps: with other names alone, all would be one problem."""


def _file(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_problems_from_a_file(tmp_path: Path, play_gold: Callable[..., Any]) -> None:
    env = ProofChecker(source=_file(tmp_path, *_ROWS))
    train, held_out = env.task_list("train"), env.task_list("held_out")
    assert len(train) + len(held_out) == len(_ROWS)
    assert all(play_gold(env, task).score.value == 1 for task in (*train, *held_out))


def test_a_formula_that_takes_more_room_when_it_is_written_out(
    tmp_path: Path, play_gold: Callable[..., Any]
) -> None:
    """Short signs and few brackets make 200 characters many; what was read can be read again."""
    long = "∧".join(f"(∀x.r{n}(x)→∃y.s{n}(x,y))" for n in range(8))
    assert len(long) < 200 < len(str(read_formula(long)))
    rows = [{"premises": [long, f"a{n}"], "goal": f"a{n}", "proof": [f"a{n} from 2"]} for n in range(9)]
    env = ProofChecker(source=_file(tmp_path, *rows))
    assert play_gold(env, env.task_list("train")[0]).score.value == 1


def test_a_row_without_a_proof_can_be_asked_but_has_no_expert(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "proof"} for row in _ROWS]
    env = ProofChecker(source=_file(tmp_path, *rows))
    with pytest.raises(DataError, match="the row has no proof"):
        env.gold(env.task_list("train")[0])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"goal": "d0"}, "row 1: the proof is wrong: the last line is not the goal, d0"),
        ({"goal": "~c0", "proof": []}, "row 1: the goal does not follow"),
        ({"goal": "c0 &"}, "row 1: column 'goal': 'c0 &' is not a formula"),
        ({"goal": 7}, "row 1: column 'goal': '7' is not a formula"),
        ({"premises": []}, "row 1: column 'premises' must be a list of 1 to 60 formulas"),
        ({"premises": ["a0", "a0(ada) -> c0"]}, "row 1: a0 is used with different numbers of terms"),
        ({"premises": "a0"}, "row 1: column 'premises' must be a list"),
        ({"premises": ["a0", "~a0"]}, "row 1: the premises contradict each other"),
        ({"premises": ["a0", None]}, "row 1: column 'premises' must hold text"),
        ({"proof": ["a1 from 1"]}, "row 1: the proof is wrong: line 3: does not follow"),
        ({"proof": 3}, "row 1: column 'proof' must be text or a list of lines"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    env = ProofChecker(source=_file(tmp_path, {**_ROWS[0], **change}, *_ROWS[1:]))
    with pytest.raises(DataError, match=complaint):
        env.task_list("train")


def test_a_held_out_file_needs_a_file() -> None:
    with pytest.raises(UserError, match="held_out_file"):
        validate_settings(ProofChecker.Config, {"held_out_file": "x.jsonl"}, "ProofChecker")
