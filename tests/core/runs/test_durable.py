"""What was written is on disk before anything relies on it, and a full disk leaves what was there."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from envgym.config import Section
from envgym.errors import UserError
from envgym.runs.durable import sync_tree, write_atomic
from envgym.runs.folder import RunFolder


class Recipe(Section):
    steps: int = 3


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", Recipe(), seed=7)


@pytest.fixture
def full() -> Iterator[None]:
    """No file may grow beyond a few bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_content_comes_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, disk_calls: list[tuple[str, str]]
) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "one")
    assert disk_calls == [("sync", f"{path}.draft"), ("rename", str(path)), ("sync", str(tmp_path))]


def test_every_file_and_folder_of_a_tree_is_on_disk(tmp_path: Path, disk_calls: list[tuple[str, str]]) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("one", "a/two", "a/b/three"):
        (tmp_path / name).write_text(name)
    sync_tree(tmp_path)
    names = ("", "/one", "/a", "/a/two", "/a/b", "/a/b/three")
    assert sorted(disk_calls) == sorted(("sync", f"{tmp_path}{name}") for name in names)


def test_rows_are_on_disk_when_they_are_added(folder: RunFolder, disk_calls: list[tuple[str, str]]) -> None:
    folder.append_metrics({"step": 1})
    folder.append_trajectories(1, [])
    rows, trajectories = folder.path / "metrics.jsonl", folder.path / "trajectories" / "step-000001.jsonl"
    written = [rows, rows.parent, trajectories, trajectories.parent]
    assert disk_calls == [("sync", str(path)) for path in written]
    folder.append_metrics({"step": 2})
    assert disk_calls[len(written) :] == [("sync", str(rows))]


def test_a_row_that_does_not_fit_leaves_those_before_it(folder: RunFolder, full: None) -> None:
    """The message says which file, how much is free, and how to go on with this run."""
    folder.append_metrics({"step": 1})
    again = rf"metrics.jsonl could not be written: .*MiB free.*envgym train --resume {folder.path}$"
    for _ in range(2):
        with pytest.raises(UserError, match=again):
            folder.append_metrics({"step": 2, "x" * 5000: 1})
    assert folder.metrics() == [{"step": 1}]
    folder.append_metrics({"step": 2})
    assert folder.metrics() == [{"step": 1}, {"step": 2}]


def test_a_file_that_does_not_fit_leaves_the_one_that_was_there(folder: RunFolder, full: None) -> None:
    folder.write_summary({"environments": {}, "steps": 1})
    before = folder.summary()
    with pytest.raises(UserError, match=r"summary.json could not be written: File too large"):
        folder.write_summary({"steps": 2, "text": "x" * 5000})
    assert folder.summary() == before
    assert not list(folder.path.rglob("*.draft"))


def test_without_a_run_there_is_nothing_to_resume(tmp_path: Path, full: None) -> None:
    with pytest.raises(UserError, match=r"make room, then try again$"):
        write_atomic(tmp_path / "a", "x" * 5000)
