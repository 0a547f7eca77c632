"""Tasks from files: HumanEval, MBPP, and any JSON lines of their shapes.

Shapes, told apart by their columns:

- ``prompt, entry_point, canonical_solution, test``: HumanEval's; ``test`` defines ``check(candidate)``;
- ``prompt`` (or ``text``) ``, code, test_list``: MBPP's; ``test_list`` holds asserts;
- ``prompt, tests, solution``: whole programs; ``tests`` holds objects with ``stdin`` and ``stdout``.
"""

from __future__ import annotations

import ast
import doctest
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic

from envgym.errors import DataError, UserError
from envgym.records import Message, Split, Task
from envgym.tasks.procedural import stable_id
from envgym.tasks.rows import read_rows
from envgym_environments.code_sandbox.procedural import SYSTEM
from envgym_environments.code_sandbox.suites import AssertTests, StdioTest, StdioTests, Suite

__all__ = ["load_tasks"]

NAMED = {"humaneval": "humaneval.jsonl.gz", "mbpp": "mbpp_sanitized.json"}
_SHAPES = (
    ("entry_point", "canonical_solution", "test"),
    ("code", "test_list"),
    ("tests", "solution"),
)
_MBPP_TRAIN = range(511, 975)
"""MBPP's own validation and training tasks; its test tasks are 11 to 510, and 1 to 10 are examples."""
_HELD_OUT_SHARE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    id: str
    statement: str
    suite: Suite


def load_tasks(source: str, split: Split, visible: int) -> list[Task]:
    """Read the tasks of a split.

    HumanEval is a test set: all of it is held out. MBPP keeps its own splits. One in five problems of any other
    file is held out, by the hash of its text.

    Args:
        source: ``"humaneval"``, ``"mbpp"``, or a file.
        split: the split to read.
        visible: number of MBPP's asserts, or of a whole program's tests, to show; at least one stays hidden.

    Raises:
        DataError: the file is missing, or a row is malformed; the message names it.
        UserError: the source has no task of this split.
    """
    problems: dict[str, _Problem] = {}
    kept = []
    for where, row in read_rows(NAMED.get(source, source), ("prompt",) if source in NAMED else ()):
        problem = _read_row(where, row, visible)
        if problem.id in problems:
            raise DataError(f"{where}: the task id {problem.id!r} is given twice")
        problems[problem.id] = problem
        if _side(source, row, problem) == split:
            kept.append(_task(problem, split))
    if not kept:
        hint = (
            " (it is a test set: use split='held_out', and train on source='mbpp')"
            if source == "humaneval"
            else ""
        )
        raise UserError(f"code_sandbox: source {source!r} has no {split} task{hint}")
    return kept


def _task(problem: _Problem, split: Split) -> Task:
    return Task(
        id=problem.id,
        split=split,
        messages=(Message(role="system", content=SYSTEM), Message(role="user", content=problem.statement)),
        reference=problem.suite.model_dump(mode="json"),
    )


def _side(source: str, row: Mapping[str, Any], problem: _Problem) -> Split:
    if source == "humaneval":
        return "held_out"
    if source == "mbpp":
        return "train" if row.get("task_id") in _MBPP_TRAIN else "held_out"
    return "held_out" if int(stable_id(problem.statement), 16) % _HELD_OUT_SHARE == 0 else "train"


def _read_row(where: str, row: Mapping[str, Any], visible: int) -> _Problem:
    shape = next((s for s in _SHAPES if all(column in row for column in s)), None)
    prompt = row.get("prompt", row.get("text"))
    if shape is None or not isinstance(prompt, str):
        shapes = "; or ".join(", ".join(("prompt", *s)) for s in _SHAPES)
        raise DataError(f"{where}: the columns {', '.join(row) or 'none'} match no known shape: {shapes}")
    readers = dict(zip(_SHAPES, (_read_check, _read_asserts, _read_stdio), strict=True))
    try:
        statement, suite = readers[shape](row, prompt, visible)
    except (TypeError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{where}: {reason}") from None
    return _Problem(id=str(row.get("task_id", stable_id(statement))), statement=statement, suite=suite)


def _read_check(row: Mapping[str, Any], prompt: str, visible: int) -> tuple[str, Suite]:
    entry_point = _text(row, "entry_point")
    preamble, definition, _ = prompt.rpartition(f"def {entry_point}(")
    if not definition:
        raise ValueError(f"the prompt does not define {entry_point!r}")
    suite = AssertTests(
        entry_point=entry_point,
        solution=prompt + _text(row, "canonical_solution"),
        preamble=preamble,
        visible=_doc_examples(prompt)[:visible],
        hidden=[f"{_text(row, 'test')}\ncheck(candidate)\n"],
    )
    return f"Complete this function:\n{prompt}", suite


def _read_asserts(row: Mapping[str, Any], prompt: str, visible: int) -> tuple[str, Suite]:
    tests = row["test_list"]
    if not isinstance(tests, list) or not tests or not all(isinstance(t, str) for t in tests):
        raise ValueError("test_list must be a non-empty list of strings")
    imports = "\n".join([*row.get("test_imports", []), ""])
    shown = tests[: min(visible, len(tests) - 1)]
    code = _text(row, "code")
    suite = AssertTests(
        entry_point=_entry_point(code, tests),
        solution=code,
        visible=[imports + t for t in shown],
        hidden=[imports + t for t in tests],
    )
    return "\n".join([prompt, "It must pass:", *(shown or [f"def {suite.entry_point}"])]), suite


def _read_stdio(row: Mapping[str, Any], prompt: str, visible: int) -> tuple[str, Suite]:
    tests = pydantic.TypeAdapter(list[StdioTest]).validate_python(row["tests"])
    if not tests:
        raise ValueError("tests is empty")
    shown = min(visible, len(tests) - 1)
    return prompt, StdioTests(solution=_text(row, "solution"), visible=tests[:shown], hidden=tests)


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"column {column!r} must be text, got {type(value).__name__}")
    return value


def _parse(source: str) -> ast.Module:
    """Parse a data set's code without warnings about its invalid escape sequences, which nobody here can mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _entry_point(code: str, tests: Sequence[str]) -> str:
    """Return the one function of ``code`` that the tests call."""
    called = {
        node.func.id
        for test in tests
        for node in ast.walk(_parse(test))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    defined = [n.name for n in _parse(code).body if isinstance(n, ast.FunctionDef) and n.name in called]
    if len(set(defined)) != 1:
        raise ValueError(
            f"the tests must call one function of the code, they call {sorted(set(defined)) or 'none'}"
        )
    return defined[0]


def _doc_examples(prompt: str) -> list[str]:
    """Return, as asserts, the docstring examples of a prompt whose results are literals."""
    found = []
    for node in ast.walk(_parse(f"{prompt}\n    pass\n")):
        for example in _examples(ast.get_docstring(node) or "" if isinstance(node, ast.FunctionDef) else ""):
            source, want = example.source.strip(), example.want.strip()
            if _is_expression(source) and _is_literal(want):
                found.append(f"assert ({source}) == ({want})")
    return found


def _examples(docstring: str) -> list[doctest.Example]:
    try:
        return doctest.DocTestParser().get_examples(docstring)
    except ValueError:  # not valid doctest syntax: the prompt is shown as it is, without visible tests
        return []


def _is_expression(source: str) -> bool:
    try:
        ast.parse(source, mode="eval")
    except (SyntaxError, ValueError):
        return False
    return True


def _is_literal(source: str) -> bool:
    try:
        ast.literal_eval(source)
    except (SyntaxError, ValueError):
        return False
    return True
