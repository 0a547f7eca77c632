"""A run's folder is readable after a crash at any instant."""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.config import Section
from envgym.errors import UserError
from envgym.records import Message, Outcome, Score, Task, Trajectory
from envgym.runs.durable import write_atomic
from envgym.runs.folder import RunFolder
from envgym.runs.reading import Damage, read_rows

LINES = [b'{"a":1}\n', '{"a":"é\u2028"}\n'.encode(), b'{"a":3}\n']


class Recipe(Section):
    steps: int = 3
    name: str | None = None
    tags: tuple[str, ...] = ("x",)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs" / "one", Recipe(), seed=7)


def played(text: str, failed: bool = False) -> Trajectory:
    task = Task(id=text, split="train", messages=(Message(role="user", content=text),))
    outcome = Outcome.failed(ValueError("x")) if failed else Outcome.completed()
    return Trajectory(env="e", task=task, outcome=outcome, score=Score(value=1.0, accuracy=1.0))


def test_a_new_run_says_what_it_is_and_with_what_it_was_made(folder: RunFolder) -> None:
    assert tomllib.loads((folder.path / "recipe.toml").read_text()) == {"steps": 3, "tags": ["x"]}
    versions = json.loads((folder.path / "versions.json").read_text())
    assert versions["seed"] == 7
    assert versions["packages"].keys() >= {"envgym", "numpy", "torch"}
    assert folder.checkpoints.is_dir()
    assert folder.metrics() == folder.trajectories(1) == []
    assert folder.summary() is None
    assert RunFolder.existing(folder.path).path == folder.path


def test_a_folder_that_cannot_be_a_run_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"already holds a run; resume it .envgym train --resume"):
        RunFolder.create(folder.path, Recipe(), 0)
    with pytest.raises(UserError, match=r"no run in .*: it has no recipe.toml"):
        RunFolder.existing(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"no run folder can be made at .*: Not a directory"):
        RunFolder.create(tmp_path / "file" / "run", Recipe(), 0)


@settings(deadline=None, max_examples=40)
@given(cut=st.integers(0, sum(map(len, LINES))))
def test_a_file_cut_anywhere_gives_its_whole_rows(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Also in the middle of a character."""
    path = tmp_path_factory.mktemp("cut") / "rows.jsonl"
    path.write_bytes(b"".join(LINES)[:cut])
    whole = [json.loads(line) for i, line in enumerate(LINES) if cut >= sum(map(len, LINES[: i + 1]))]
    damage = Damage(path.parent)
    assert list(read_rows(path, json.loads, damage)) == whole
    assert len(damage.lines()) == (cut not in [sum(map(len, LINES[:i])) for i in range(4)])


def test_a_damaged_row_is_skipped_counted_and_told_by_file_and_row(folder: RunFolder) -> None:
    folder.append_metrics({"step": 1})
    path = folder.path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{broken}\nnull\n{"loss": 1}\n{"step": 2}\n{"step": 3, "loss": "x"}\n')
    assert folder.metrics() == [{"step": 1}, {"step": 2}]
    (folder.path / "trajectories" / "step-000001.jsonl").write_text('{"env": 1}\n')
    assert folder.trajectories(1) == []
    rows, trajectories = folder.damage.lines()
    assert rows.startswith("4 rows of metrics.jsonl were skipped; the first, row 2: Expecting property name")
    assert trajectories.startswith(
        "1 row of trajectories/step-000001.jsonl was skipped, row 1: env: Input should be"
    )
    path.write_text('{"step": 1}\n')
    assert folder.metrics() == [{"step": 1}]
    assert len(folder.damage.lines()) == 1, "the other was mended"


def test_a_missing_file_has_no_rows(tmp_path: Path) -> None:
    damage = Damage(tmp_path)
    assert list(read_rows(tmp_path / "none.jsonl", json.loads, damage)) == []
    assert damage.lines() == []


@pytest.mark.parametrize("left", [b'{"st', b"x" * 100_000, b"\xc3"])
def test_rows_added_after_a_crash_are_not_joined_to_what_it_left(folder: RunFolder, left: bytes) -> None:
    folder.append_metrics({"step": 1})
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write(left)
    folder.append_metrics({"step": 2})
    assert [row["step"] for row in folder.metrics()] == [1, 2]
    (folder.path / "metrics.jsonl").write_bytes(left)
    folder.append_metrics({"step": 1})
    assert folder.metrics() == [{"step": 1}]


def test_metrics_are_strict_json(folder: RunFolder) -> None:
    folder.append_metrics({"step": 1, "loss": math.nan, "norm": math.inf, "é": 1})
    text = (folder.path / "metrics.jsonl").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert folder.metrics() == [{"step": 1, "loss": None, "norm": None, "é": 1}]


def test_what_a_newer_version_wrote_is_refused_by_file_and_row(folder: RunFolder) -> None:
    folder.append_metrics({"step": 1})
    text = (folder.path / "metrics.jsonl").read_text()
    assert json.loads(text) == {"schema": 1, "step": 1}
    (folder.path / "metrics.jsonl").write_text(text + text.replace('"schema": 1', '"schema": 2'))
    assert folder.metrics() == [{"step": 1}]
    folder.write_summary({"environments": {}})
    assert folder.summary() is not None
    path = folder.path / "summary.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    assert folder.summary() is None
    rows, summary = folder.damage.lines()
    assert re.match(r"1 row of metrics.jsonl was skipped, row 2: .*schema 2 is newer", rows)
    assert re.match(r"summary.json was skipped: it cannot be read \(schema 2 is newer", summary)


def test_trajectories_come_back_by_step(folder: RunFolder) -> None:
    made = [played("a"), played("b\u2028\n", failed=True)]
    folder.append_trajectories(3, made)
    folder.append_trajectories(3, [played("c")])
    assert folder.trajectories(3) == [*made, played("c")]
    assert folder.trajectories(2) == []


def test_a_resumed_run_forgets_the_steps_after_its_checkpoint(folder: RunFolder) -> None:
    for step in (1, 2, 3):
        folder.append_metrics({"step": step})
        folder.append_trajectories(step, [played(str(step))])
    folder.forget_after(2)
    assert [row["step"] for row in folder.metrics()] == [1, 2]
    assert [len(folder.trajectories(step)) for step in (1, 2, 3)] == [1, 1, 0]
    folder.forget_after(0)
    assert folder.metrics() == []


def test_a_whole_file_or_none(tmp_path: Path) -> None:
    """A write that fails leaves what was there."""
    path = tmp_path / "a.json"
    write_atomic(path, "one")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert path.read_text() == "one"
    write_atomic(path, "two")
    assert path.read_text() == "two"


def test_the_summary_carries_the_versions(folder: RunFolder) -> None:
    written = folder.write_summary({"environments": {}, "steps": 3})
    assert written["versions"]["seed"] == 7
    assert folder.summary() == written


def test_no_key_is_kept_in_a_runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor in the record of an episode in which a tool showed it; the record stays one."""

    class Keyed(Section):
        judge: str = "http://me:hunter2@host/v1?api_key=hunter2#model"
        api_key: str = "hunter2"
        eos_token: str = "</s>"

    key = 'hun"ter2-\\-content'
    monkeypatch.setenv("ENVGYM_API_KEY", key)
    folder = RunFolder.create(tmp_path / "run", Keyed(), seed=7)
    folder.append_trajectories(1, [played(f"the key is {key}"), played("http://me:pw@host")])
    folder.write_summary({"environments": {}, "left_out": {"a": f"refused {key}"}, "warnings": ["?token=hunter2"]})
    for path in folder.path.rglob("*.*"):
        assert not re.search("hun.{0,2}ter2", path.read_text()), path
    one, other = folder.trajectories(1)
    assert one.task.messages[0].content == "the key is [key]"
    assert other == played("http://me:pw@host"), "what a model wrote is data"
    saved = tomllib.loads((folder.path / "recipe.toml").read_text())
    assert saved == {"judge": "http://[key]@host/v1?api_key=[key]#model", "api_key": "[key]", "eos_token": "</s>"}
    assert folder.damage.lines() == []


@pytest.mark.parametrize(
    "put",
    [
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.write_bytes(b"\xff\xfe{\0}\0"),
    ],
    ids=["folder", "pipe", "circle", "device", "UTF-16"],
)
def test_whatever_is_in_a_files_place_is_told_and_never_waited_for(
    folder: RunFolder, put: Callable[[Path], object]
) -> None:
    for name in ("metrics.jsonl", "summary.json", "controls.json", "trajectories/step-000001.jsonl"):
        put(folder.path / name)
    assert folder.metrics() == folder.trajectories(1) == []
    assert folder.summary() is folder.comparison() is None
    assert len(folder.damage.lines()) == 4
