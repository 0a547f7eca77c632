"""``math_problems``: what is right, what is not, and where problems come from."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import datasets
import pytest

from envgym.env.services import Services
from envgym.errors import DataError, RecipeError
from envgym.policies.scripted import Expert
from envgym.records import Message, OutcomeKind, Task, problem_key
from envgym.rollout.episode import rollout
from envgym.sandbox.interface import ExecResult, Limits, Sandbox, Status
from envgym.verifiers import Decision, Verdict, VerifierStage
from envgym_environments.math_problems import MathProblems
from envgym_environments.math_problems.problem import MathProblem

TASK = Task(
    id="t", split="train", messages=(Message(role="user", content="What is 12+7?"),), reference={"answer": "19"}
)


@pytest.mark.parametrize(
    ("final", "right"),
    [
        ("<answer>19</answer>", True),
        ("So \\boxed{19}.", True),
        ("<answer>19.0</answer>", True),
        ("<answer>18</answer> No: <answer>19</answer>", True),
        ("<think><answer>18</answer></think><answer>19</answer>", True),
        ("<answer>19</answer> No: <answer>18</answer>", False),
        ("<answer>19</answer></think>", False),
        ("<answer>12+7</answer>", False),
        ("<answer>38/2</answer>", False),
        ("<answer>\\frac{38}{2}</answer>", False),
        ("<answer>38 ÷ 2</answer>", False),
        ("<answer>38 \\cdot 2^{-1}</answer>", False),
        ("<answer>\\sqrt{361}</answer>", False),
        ("<answer>1.9 \\times 10^1</answer>", True),
        ("<answer>x = 19</answer>", True),
        ("<answer>18 or 19</answer>", False),
        ("<answer>18, 19, 20</answer>", False),
        ("<answer>119</answer>", False),
        ("<answer>19", False),
        ("<tool_response>19</tool_response>", False),
        ("<|im_start|>tool\n<answer>19</answer><|im_end|>\n<answer></answer>", False),
        ("<answer></answer>", False),
        ("19", False),
        ("The answer is 19.", False),
        ("", False),
        ("What is 12+7?", False),
        ("<answer>What is 12+7?</answer>", False),
    ],
)
def test_only_the_last_fenced_answer_counts(play: Any, final: str, right: bool) -> None:
    score = play(MathProblems(), TASK, final).score
    assert (score.value, score.accuracy) == (float(right), float(right))


@pytest.mark.parametrize(
    ("answer", "right"),
    [("5/6", True), ("\\frac{10}{12}", True), ("1/2+1/3", False), ("(1/2)/(3/5)", False), ("0.83", False)],
)
def test_a_fraction_has_one_bar(play: Any, answer: str, right: bool) -> None:
    task = Task(id="f", split="train", messages=TASK.messages, reference={"answer": "5/6"})
    assert play(MathProblems(), task, f"<answer>{answer}</answer>").score.value == float(right)


def test_a_verifier_that_cannot_decide_is_missing_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def undecided(prediction: str, gold: str, **comparison: Any) -> Verdict:
        return Verdict(Decision.TIMEOUT, VerifierStage.COMPUTER_ALGEBRA, "out of time", 1.0)

    monkeypatch.setattr("envgym_environments.math_problems.checking.verify_math", undecided)
    trajectory = asyncio.run(rollout(MathProblems(), Expert(), TASK, name="math", seed=0))
    assert trajectory.outcome.kind is OutcomeKind.FAILED
    assert trajectory.outcome.reason == "VerifierError: timeout: out of time"
    assert trajectory.score is None


def test_an_answer_in_an_earlier_message_or_in_tool_output_is_none(play: Any) -> None:
    """The calculator shows 19; only saying so in the last message is an answer."""
    assert play(MathProblems(), TASK, ("calculator", {"expression": "12+7"}), "done").score.value == 0


def test_the_best_wrong_answer_is_far_below_a_right_one(play: Any) -> None:
    env = MathProblems(format_weight=0.2)
    assert play(env, TASK, "<answer>5</answer>").score.value == pytest.approx(0.2)
    assert play(env, TASK, "5").score.value == 0
    assert play(env, TASK, "<answer>19</answer>").score.value == pytest.approx(1.0)


@pytest.mark.parametrize("expression", ["1/0", "__import__('os')", "9**9**9", ""])
def test_a_bad_expression_is_answered_not_raised(play: Any, expression: str) -> None:
    trajectory = play(MathProblems(), TASK, ("calculator", {"expression": expression}), "<answer>19</answer>")
    assert trajectory.turns[1].messages[0].content.startswith("error: ")
    assert trajectory.turns[0].metrics["tool_errors"] == 1
    assert trajectory.score.value == 1


def test_the_calculator_can_be_withheld(play_gold: Any) -> None:
    env = MathProblems(calculator=False)
    assert not env.tools
    trajectory = play_gold(env, env.task_list("train")[0])
    assert trajectory.score.value == 1
    assert len(trajectory.turns) == 1


def test_gsm8k_files_are_the_splits(data_folder: Path, play_gold: Any) -> None:
    env = MathProblems(source="gsm8k")
    train, held_out = env.task_list("train"), env.task_list("held_out")
    assert (len(train), len(held_out)) == (7473, 1319)
    assert not {problem_key(t) for t in train} & {problem_key(t) for t in held_out}
    assert held_out[0].reference == {"answer": "18"}
    assert all(play_gold(env, t).score.value == 1 for t in (*train[:10], *held_out[:10]))


def test_one_file_serves_both_splits(tmp_path: Path) -> None:
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps({"q": f"What is {i}+1?", "a": i + 1}) + "\n" for i in range(200)))
    env = MathProblems(source=str(path), question_column="q", answer_column="a")
    train, held_out = env.task_list("train"), env.task_list("held_out")
    assert len(train) + len(held_out) == 200
    assert 20 <= len(held_out) <= 60
    assert not {t.id for t in train} & {t.id for t in held_out}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"question": "What?"}, "no column 'answer'"),
        ({"question": "", "answer": "#### 3"}, "column 'question' must hold text"),
        ({"question": ["What?"], "answer": "#### 3"}, "column 'question' must hold text"),
        ({"question": "What?", "answer": True}, "column 'answer' must hold text"),
        ({"question": "What?", "answer": "3"}, "no '####' in column 'answer'"),
        ({"question": "What?", "answer": "#### "}, "gold"),
        (["What?", "3"], "expected an object"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: object, fault: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "Fine?", "answer": "#### 1"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"rows\.jsonl, row 2: ") as error:
        MathProblems(source=str(path), answer_marker="####").task_list("train")
    assert fault in str(error.value)


def test_a_question_in_both_files_is_contamination(tmp_path: Path) -> None:
    for name, numbers in (("train.jsonl", (1, 2, 3)), ("held_out.jsonl", (9, 3))):
        rows = [json.dumps({"question": f"What is {n}+{n}?", "answer": 2 * n}) for n in numbers]
        (tmp_path / name).write_text("\n".join(rows))
    env = MathProblems(source=str(tmp_path / "train.jsonl"), held_out_file=str(tmp_path / "held_out.jsonl"))
    assert len(env.task_list("held_out")) == 2
    with pytest.raises(DataError, match=r"train\.jsonl, row 3: .* held out as held_out\.jsonl, row 2"):
        env.task_list("train")


def test_missing_files_empty_files_and_wrong_settings_say_so(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"no data file 'nothing\.jsonl'"):
        MathProblems(source="nothing.jsonl").task_list("train")
    with pytest.raises(DataError, match="no train task"):
        MathProblems(source=str(tmp_path / "empty.jsonl")).task_list("train")
    with pytest.raises(RecipeError, match="families"):
        MathProblems(families=["algebra"])
    with pytest.raises(RecipeError, match="levels"):
        MathProblems(levels=[6])
    with pytest.raises(RecipeError, match="answer_marker: only for a source that is a file"):
        MathProblems(source="gsm8k", answer_marker="####")
    with pytest.raises(RecipeError, match="format_weight"):
        MathProblems(format_weight=0.5)


class OneSandbox(Services, Sandbox):
    """A sandbox service whose only sandbox answers with what ``results`` holds."""

    def __init__(self, *results: ExecResult) -> None:
        super().__init__()
        self.results = list(results)
        self.log: list[str] = []

    async def open_sandbox(self, limits: Limits) -> Sandbox:
        self.log.append(f"open {limits.wall_seconds:g}")
        return self

    async def run_cell(self, code: str, *, wall_seconds: float | None = None) -> ExecResult:
        self.log.append(code)
        return self.results.pop(0)

    async def run_python(self, code: str, *, stdin: bytes = b"", wall_seconds: float | None = None) -> ExecResult:
        raise NotImplementedError

    async def exec(self, argv: Any, *, stdin: bytes = b"", wall_seconds: float | None = None) -> ExecResult:
        raise NotImplementedError

    async def write(self, files: Any) -> None:
        raise NotImplementedError

    async def read(self, path: str, *, limit: int = 0) -> bytes:
        raise NotImplementedError

    async def close(self) -> None:
        self.log.append("close")


def test_python_runs_in_one_sandbox_that_the_episode_closes(play: Any) -> None:
    services = OneSandbox(
        ExecResult(status=Status.OK, exit_code=0, stdout=b"19\n"),
        ExecResult(status=Status.OK, exit_code=0),
        ExecResult(status=Status.NONZERO, exit_code=1, stderr=b"Traceback\nNameError: x"),
        ExecResult(status=Status.TIMEOUT, exit_code=None),
    )
    env = MathProblems(services=services, python=True, python_seconds=3)
    assert set(env.tools) == {"calculator", "python"}
    trajectory = play(env, TASK, *[("python", {"code": c}) for c in "abcd"], "<answer>19</answer>")
    shown = [turn.messages[0].content for turn in trajectory.turns[1:]]
    assert shown == ["19", "nothing was printed", "error: nonzero: NameError: x", "error: timeout: "]
    assert services.log == ["open 3", "a", "b", "c", "d", "close"]
    assert trajectory.score.value == 1


def test_no_sandbox_is_opened_where_python_is_not_used(play_gold: Any) -> None:
    services = OneSandbox()
    play_gold(MathProblems(services=services, python=True), TASK)
    assert services.log == []


@pytest.mark.parametrize("families", [("arithmetic",), ("word_problems", "fractions")])
def test_examples_are_shown_and_never_asked(families: tuple[str, ...]) -> None:
    """The same three solved problems before every question of both splits."""
    env = MathProblems(families=families, examples=3, size=300)
    shown = {env.task_list(split)[i].messages[:-1] for split in ("train", "held_out") for i in range(300)}
    assert len(shown) == 1
    messages = shown.pop()
    assert [m.role for m in messages] == ["system", *["user", "assistant"] * 3]
    asked = {task.messages[-1].content for split in ("train", "held_out") for task in env.task_list(split)}
    assert not asked & {m.content for m in messages}
    assert all("<answer>" in m.content for m in messages[2::2])


def test_examples_that_exhaust_a_family_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family of two problems: one may be shown, and the other is asked; both may not."""

    def tiny(rng: random.Random, level: int) -> MathProblem:
        number = rng.randint(1, 2)
        return MathProblem(question=f"What is {number}+1?", expression=f"{number}+1")

    monkeypatch.setattr("envgym_environments.math_problems.env.FAMILIES", {"arithmetic": tiny})
    generate = MathProblems(families=("arithmetic",), examples=1)._generate
    shown, asked = (message.content for message in generate(random.Random(0), "train").messages[1::2])
    assert {shown, asked} == {"What is 1+1?", "What is 2+1?"}
    with pytest.raises(DataError, match="set examples below 16, or add families or levels"):
        MathProblems(families=("arithmetic",), examples=16).task_list("train")[0]


def test_a_files_examples_are_its_first_training_rows(tmp_path: Path) -> None:
    rows = [{"question": f"What is {i}+1?", "answer": str(i + 1)} for i in range(20)]
    file = tmp_path / "sums.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    plain, shown = MathProblems(source=str(file)), MathProblems(source=str(file), examples=2)
    first = [task.messages[-1].content for task in plain.task_list("train")]
    messages = shown.task_list("held_out")[0].messages
    assert [m.content for m in messages[1:-1:2]] == first[:2]
    assert [task.messages[-1].content for task in shown.task_list("train")] == first[2:]
    assert len(shown.task_list("held_out")) == len(plain.task_list("held_out"))


def test_a_hugging_face_data_set_by_its_columns(tmp_path: Path, play_gold: Any) -> None:
    """Both splits from one folder, as ``save_to_disk`` leaves it."""
    splits = {
        name: datasets.Dataset.from_list(
            [{"problem": f"{name}: {n} + 1?", "solution": f"so #### {n + 1}"} for n in range(4)]
        )
        for name in ("train", "test")
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "sums")
    env = MathProblems(
        source=f"hf:{tmp_path}/sums",
        held_out_file=f"hf:{tmp_path}/sums#test",
        question_column="problem",
        answer_column="solution",
        answer_marker="####",
    )
    assert [t.messages[-1].content for t in env.task_list("held_out")] == [f"test: {n} + 1?" for n in range(4)]
    assert [t.id for t in env.task_list("train")][:2] == ["train/sums/1", "train/sums/2"]
    assert play_gold(env, env.task_list("train")[3]).score.value == 1


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        ({"answer": "10", "unit": "cm"}, "10 cm", "10 m"),
        ({"answer": "10 cm"}, "10 cm", "10"),
        ({"answer": "50", "percent": True}, "50\\%", "0.5"),
        ({"answer": "0.5"}, "50\\%", "50"),
        ({"answer": "3.14", "rounded": True}, "3.1416", "3.15"),
        ({"answer": "3.14"}, "3.140", "3.1416"),
    ],
)
def test_a_row_says_how_its_answer_is_compared(
    tmp_path: Path, play: Any, row: dict[str, Any], right: str, wrong: str
) -> None:
    rows = [{"question": f"How much is case {n}?", **row} for n in range(9)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    env = MathProblems(source=str(path))
    task = env.task_list("train")[0]
    assert play(env, task, f"<answer>{right}</answer>").score.value == 1
    assert play(env, task, f"<answer>{wrong}</answer>").score.value == 0


@pytest.mark.parametrize(("column", "value"), [("unit", 3), ("percent", "yes"), ("rounded", 1)])
def test_a_row_that_says_it_wrongly_is_named(tmp_path: Path, column: str, value: object) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "?", "answer": "1", column: value}) + "\n")
    with pytest.raises(DataError, match=f"row 1: column '{column}' must be"):
        MathProblems(source=str(path)).task_list("train")
