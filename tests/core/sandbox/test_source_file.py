"""Source text runs as the file of it would."""

from __future__ import annotations

import inspect
import linecache
import tokenize
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.sandbox.source_file import as_file, execute, write_source

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=40)


@pytest.mark.parametrize(
    "cookie", ["", "# coding: utf-8\n", "#!x\n# -*- coding: latin-1 -*-\n", "# coding=cp1252\n"]
)
@settings(deadline=None)
@given(text=TEXTS)
def test_a_file_is_read_back_as_its_text(tmp_path_factory: pytest.TempPathFactory, cookie: str, text: str) -> None:
    """By whoever honours its declaration, as long as that can express it."""
    text = f"{cookie}x = {text!r}\n"
    path = tmp_path_factory.getbasetemp() / "text.py"
    write_source(text, str(path))
    try:
        text.encode({"": "utf-8"}.get(cookie, cookie.split("coding")[-1].strip(":= -*\n")))
    except UnicodeEncodeError:
        assert path.read_bytes() == text.encode()
        return
    with tokenize.open(path) as file:
        assert file.read() == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("é", "é".encode()),
        ("# coding: latin-1\né", b"# coding: latin-1\n\xe9"),
        ("\n# coding: latin-1\né", b"\n# coding: latin-1\n\xe9"),
        ("x = 1\n# coding: latin-1\né", "x = 1\n# coding: latin-1\né".encode()),
        ("\n\n# coding: latin-1\né", "\n\n# coding: latin-1\né".encode()),
        ("# coding: none-such\né", "# coding: none-such\né".encode()),
        ("# coding: ascii\né", "# coding: ascii\né".encode()),
        ("# coding: rot13\né", "# coding: rot13\né".encode()),
        ("\ufeff# coding: utf-8\né", "\ufeff# coding: utf-8\né".encode()),
        ("'\ud800'", b"'\xed\xa0\x80'"),
    ],
)
def test_only_a_declaration_that_counts_and_suffices_is_followed(text: str, found: bytes) -> None:
    assert as_file(text) == found


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_marks_and_line_ends_do_not_count(mark: str, end: str) -> None:
    names: dict[str, Any] = {}
    lines = [
        "# coding: ascii",
        "from __future__ import annotations",
        "def f(x: é) -> no:",
        "    return '''a",
        "b'''",
        "",
    ]
    execute(mark + end.join(lines), "/nowhere/marks.py", names)
    assert names["f"](0) == "a\nb"
    assert names["f"].__annotations__ == {"x": "é", "return": "no"}
    assert linecache.getline("/nowhere/marks.py", 3) == "def f(x: é) -> no:\n"


def test_flags_of_the_caller_are_not_inherited() -> None:
    """This file has future imports; the text has none."""
    names: dict[str, Any] = {}
    execute("def f(x: 1 + 1): pass", "/nowhere/flags.py", names)
    assert names["f"].__annotations__ == {"x": 2}


@settings(deadline=None)
@given(st.sampled_from(["\x0c", "\x1c", "\u2028", "\x85", "\t"]))
def test_only_line_ends_separate_lines(other: str) -> None:
    """The interpreter counts fewer separators than ``str.splitlines`` does."""
    names: dict[str, Any] = {}
    execute(f"x = 1  # {other}\n# {other}\ndef g():\n    return 2\n", "/nowhere/lines.py", names)
    assert inspect.getsource(names["g"]) == "def g():\n    return 2\n"


def test_what_stands_in_the_way_is_replaced_and_a_folder_is_not(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    (tmp_path / "link").symlink_to(kept)
    write_source("x = 1", str(tmp_path / "link"))
    assert kept.read_text() == "kept"
    assert (tmp_path / "link").read_text() == "x = 1"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_source("x = 1", str(tmp_path / "folder"))
