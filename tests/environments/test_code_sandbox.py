"""code_sandbox without a sandbox: its tasks, its files, and what happens when nothing is submitted."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.env.registration import make
from envgym.env.services import Services
from envgym.errors import DataError, SandboxError, UserError
from envgym.records import Message, Split, Task, ToolCall, problem_key
from envgym.sandbox.interface import Limits, Sandbox
from envgym_environments.code_sandbox.families import FAMILIES
from envgym_environments.code_sandbox.sources import load_tasks
from envgym_environments.code_sandbox.suites import AssertTests, StdioTests, ValueTests, read_suite

CHECK_ROW = {
    "task_id": "T/0",
    "prompt": 'def add(a, b):\n    """ Adds.\n    >>> add(1, 2)\n    3\n    >>> add([1], [])\n    [1]\n    """\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(2, 2) == 4\n",
}
ASSERTS_ROW = {
    "task_id": 600,
    "prompt": "Write a function that doubles.",
    "code": "def helper(x):\n    return x\n\ndef twice(x):\n    return helper(x) * 2",
    "test_list": ["assert twice(1) == 2", "assert twice(5) == 10", "assert twice('a') == 'aa'"],
}
STDIO_ROW = {
    "prompt": "Print the number plus one.",
    "tests": [{"stdin": "1\n", "stdout": "2\n"}, {"stdin": "5\n", "stdout": "6\n"}],
    "solution": "print(int(input()) + 1)",
}
Write = Callable[..., str]
SPLITS: tuple[Split, ...] = ("train", "held_out")


class NoSandbox(Services):
    """A machine whose sandboxes do not start."""

    async def open_sandbox(self, limits: Limits) -> Sandbox:
        raise SandboxError("none")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows as JSON lines and return the file's name."""

    def rows(*items: object) -> str:
        path = tmp_path / "tasks.jsonl"
        path.write_text("\n".join(i if isinstance(i, str) else json.dumps(i) for i in items), encoding="utf-8")
        return str(path)

    return rows


def both_splits(name: str) -> list[Task]:
    """All tasks of a file, whichever split they fall in."""
    found: list[Task] = []
    for split in SPLITS:
        try:
            found += load_tasks(name, split, 2)
        except DataError:
            raise
        except UserError:
            continue
    return found


def test_tasks_are_many_and_short() -> None:
    env = make("code_sandbox-v1", size=2000)
    tasks = env.task_list("train")
    prompts = {task.messages[-1].content for task in tasks}
    assert len(prompts) > 1700
    assert max(len(p) for p in prompts) < 110
    assert max(len(str(env.gold(t)[0].tool_calls[0].arguments["code"])) for t in tasks) < 110


def test_splits_share_no_problem() -> None:
    env = make("code_sandbox-v1", size=1500)
    train, held_out = ({problem_key(t) for t in env.task_list(s)} for s in ("train", "held_out"))
    assert not train & held_out


@given(st.sampled_from(sorted(FAMILIES)), st.integers(1, 5), st.integers())
@settings(max_examples=60)
def test_hidden_tests_repeat_no_visible_one(family: str, steps: int, seed: int) -> None:
    task = make("code_sandbox-v1", families=[family], steps=steps, task_seed=seed).task_list("train")[0]
    suite = read_suite(task.reference)
    assert isinstance(suite, ValueTests | StdioTests)
    asked = [str(test.model_dump(exclude={"expected", "stdout"})) for test in (*suite.visible, *suite.hidden)]
    assert len(set(asked)) == len(asked) == 8


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_more_steps_make_longer_problems(steps: int) -> None:
    problem = FAMILIES["numbers"](random.Random(0), steps)
    assert problem.statement.count("then") == steps - 1


def test_expected_results_by_hand() -> None:
    """The reference's expected results are those of the words in the prompt."""
    for seed in range(200):
        problem = FAMILIES["numbers"](random.Random(seed), 1)
        words = problem.statement.rstrip(".").split()
        operand = int(words[-1])
        by_hand = {"add": 7 + operand, "subtract": 7 - operand, "multiply": 7 * operand, "take": 7 % operand}
        assert problem.apply(7) == by_hand[words[6]]


def test_no_submission_is_worth_the_floor() -> None:
    env = make("code_sandbox-v1")
    task = env.task_list("train")[0]
    env.reset(seed=0, options={"task": task})
    *_, terminated, _, info = env.step(
        Message(role="assistant", content=str(env.gold(task)[1].tool_calls[0].arguments["code"]))
    )
    assert terminated
    assert info["score"].value == 0.0
    env.close()


def test_a_truncated_submission_is_not_one() -> None:
    env = make("code_sandbox-v1")
    task = env.task_list("train")[0]
    env.reset(seed=0, options={"task": task})
    call = env.gold(task)[1].tool_calls[0]
    *_, truncated, info = env.step(Message(role="assistant", content="", tool_calls=(call,), cut=True))
    assert truncated
    assert info["score"].value == 0.0
    env.close()


def test_files_of_each_shape_are_read(write: Write) -> None:
    (check,) = both_splits(write(CHECK_ROW))
    suite = read_suite(check.reference)
    assert isinstance(suite, AssertTests)
    assert suite.entry_point == "add"
    assert suite.visible == ["assert (add(1, 2)) == (3)", "assert (add([1], [])) == ([1])"]
    (asserts,) = both_splits(write(ASSERTS_ROW))
    suite = read_suite(asserts.reference)
    assert isinstance(suite, AssertTests)
    assert suite.entry_point == "twice"
    assert len(suite.visible) == 2
    assert "assert twice(5) == 10" in asserts.messages[-1].content
    assert "twice('a')" not in asserts.messages[-1].content
    (stdio,) = both_splits(write(STDIO_ROW))
    suite = read_suite(stdio.reference)
    assert isinstance(suite, StdioTests)
    assert len(suite.visible) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "x"}, "row 2: the columns prompt match no known shape"),
        ({**CHECK_ROW, "task_id": 1, "entry_point": "sub"}, "row 2: the prompt does not define 'sub'"),
        ({**CHECK_ROW, "task_id": 1, "canonical_solution": 3}, "row 2: column 'canonical_solution' must be text"),
        ({**CHECK_ROW, "task_id": 1, "prompt": None}, "row 2: the columns"),
        ({**ASSERTS_ROW, "test_list": []}, "row 2: test_list must be"),
        ({**ASSERTS_ROW, "test_list": ["assert other(1)"]}, "row 2: the tests must call one function"),
        ({**ASSERTS_ROW, "code": "def f(:"}, "row 2: "),
        ({**STDIO_ROW, "tests": [{"stdin": 1}]}, "row 2: "),
        ({**STDIO_ROW, "tests": []}, "row 2: tests is empty"),
        (CHECK_ROW, "row 2: the task id 'T/0' is given twice"),
        ("[1]", "row 2: expected an object"),
        ("{", "row 2: not JSON"),
    ],
)
def test_a_bad_row_is_named(write: Write, row: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        both_splits(write(CHECK_ROW, row))


def test_a_missing_file_and_a_test_set_to_train_on_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"no data file 'nowhere\.jsonl'"):
        make("code_sandbox-v1", source="nowhere.jsonl").task_list("train")
    (tmp_path / "humaneval.jsonl.gz").write_bytes(gzip.compress(json.dumps(CHECK_ROW).encode()))
    monkeypatch.setenv("ENVGYM_DATA", str(tmp_path))
    assert len(make("code_sandbox-v1", source="humaneval").task_list("held_out")) == 1
    with pytest.raises(UserError, match="it is a test set"):
        make("code_sandbox-v1", source="humaneval").task_list("train")


def test_a_submission_among_other_calls_ends_the_episode() -> None:
    """Whatever else a message holds; the first submission counts, and no sandbox means no score."""
    env = make("code_sandbox-v1", services=NoSandbox())
    env.reset(seed=0)
    calls = (
        ToolCall(name="nothing"),
        ToolCall(name="submit", arguments={"code": "a"}),
        ToolCall(name="submit", arguments={"code": "b"}),
    )
    with pytest.raises(SandboxError):
        env.step(Message(role="assistant", content="", tool_calls=calls))
    assert env.trajectory.artifacts == {"submission": "a"}
