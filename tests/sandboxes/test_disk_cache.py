"""What is kept on disk is used while it holds, and made again when it does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from envgym_sandboxes.disk_cache import cache_folder, cached_on_disk, fingerprint
from envgym_sandboxes.interpreter import Interpreter


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """Returns how often it was called, from a cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls: list[int] = []

    def work() -> list[int]:
        calls.append(len(calls))
        return list(calls)

    return work


def test_it_is_made_once_for_each_mark(make: Callable[[], list[int]]) -> None:
    assert [cached_on_disk("a", "1", make) for _ in range(3)] == [[0]] * 3
    assert cached_on_disk("a", "2", make) == [0, 1]
    assert cached_on_disk("b", "2", make) == [0, 1, 2]
    assert cached_on_disk("a", "2", make) == [0, 1]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mark": "1"}', '{"value": 3}'])
def test_a_damaged_file_is_made_again(make: Callable[[], list[int]], text: str) -> None:
    (cache_folder() / "a.json").write_text(text)
    assert cached_on_disk("a", "1", make) == [0]
    assert cached_on_disk("a", "1", make) == [0]


def test_where_nothing_can_be_written_it_is_made_each_time(make: Callable[[], list[int]]) -> None:
    """A folder in the place of the file: not even root can write that."""
    (cache_folder() / "a.json").mkdir()
    assert [cached_on_disk("a", "1", make) for _ in range(2)] == [[0], [0, 1]]


def test_a_fingerprint_changes_with_every_file(tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.write_text("1")
    before = fingerprint([("one", one)])
    assert fingerprint([("one", one)]) == before
    assert fingerprint([("one", one)], "word") != before
    assert fingerprint([("two", one)]) != before
    os.utime(one, ns=(0, 0))
    touched = fingerprint([("one", one)])
    one.write_text("12")
    os.utime(one, ns=(0, 0))
    assert len({before, touched, fingerprint([("one", one)])}) == 3


def test_files_are_those_of_the_trees_in_order_with_links_to_files_resolved(tmp_path: Path) -> None:
    """Compiled modules, tests and what a link to a folder holds are left out."""
    for name in ("b.py", "a/z.py", "a/test/t.py", "__pycache__/b.pyc", "elsewhere/e.py"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "tree" / "link.py").symlink_to(tmp_path / "tree" / "a" / "z.py")
    (tmp_path / "tree" / "c").symlink_to(tmp_path / "tree" / "elsewhere")
    tree = tmp_path / "tree"
    interpreter = Interpreter(python="/p", site="/s", trees={"/in": tree, "/bin/sh": tree / "b.py"})
    assert list(interpreter.files()) == [
        ("/in/b.py", tree / "b.py"),
        ("/in/link.py", tree / "a" / "z.py"),
        ("/in/a/z.py", tree / "a" / "z.py"),
        ("/in/elsewhere/e.py", tree / "elsewhere" / "e.py"),
        ("/bin/sh", tree / "b.py"),
    ]
