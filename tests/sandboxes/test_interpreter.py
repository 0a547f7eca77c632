"""The files that a sandbox brings: each once, however many names it has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from envgym_sandboxes import interpreter
from envgym_sandboxes.interpreter import copy_once


def test_a_file_of_many_names_is_copied_once(tmp_path: Path) -> None:
    """Tools may be one program, which is told by its name what to be."""
    (tmp_path / "all").write_bytes(b"x" * 1000)
    (tmp_path / "other").write_bytes(b"y")
    (tmp_path / "link").hardlink_to(tmp_path / "all")
    copied: dict[tuple[int, int], Path] = {}
    made = tmp_path / "made"
    made.mkdir()
    for name, source in (("ls", "all"), ("cat", "all"), ("cp", "link"), ("awk", "other")):
        copy_once(tmp_path / source, made / name, copied)
    assert {(made / name).stat().st_ino for name in ("ls", "cat", "cp")} == {(made / "ls").stat().st_ino}
    assert (made / "ls").stat().st_ino != (tmp_path / "all").stat().st_ino
    assert (made / "awk").read_bytes() == b"y"


def test_tools_are_collected_once_and_again_when_one_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin" / "tool"
    tool.parent.mkdir()
    shutil.copy("/bin/sh", tool)
    monkeypatch.setenv("PATH", str(tool.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(interpreter, "_TOOLS", ["tool", "one-that-is-not-there"])
    first = interpreter._tools()
    assert [file.name for file in first.iterdir()] == ["tool"]
    assert (first / "tool").stat().st_mode & 0o777 == tool.stat().st_mode & 0o777
    assert interpreter._tools() == first
    tool.write_bytes(b"#!/bin/sh\n")
    assert (interpreter._tools() / "tool").read_bytes() == b"#!/bin/sh\n"
    assert {path.name for path in first.parent.iterdir()} == {first.name, interpreter._tools().name}
