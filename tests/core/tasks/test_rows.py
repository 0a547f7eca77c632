"""Rows are read from every kind of file and data set, and what is wrong is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from envgym.errors import DataError
from envgym.tasks.rows import data_path, read_rows

ROWS = [{"q": "1 + 1?", "a": 2}, {"q": "zwei\u2028drei", "a": 3}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def put(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("bom.jsonl", "\ufeff" + LINES),
        ("unended.jsonl", LINES.rstrip("\n")),
        ("dos.jsonl", LINES.replace("\n", "\r\n")),
        ("a.json", json.dumps(ROWS)),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("a.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
    ],
)
def test_rows_are_read_from_every_kind_of_file(tmp_path: Path, name: str, content: str | bytes) -> None:
    """Also a row whose text holds a line separator of Unicode, which is no end of a line."""
    rows = list(read_rows(put(tmp_path, name, content), ["q", "a"]))
    assert [row for _, row in rows] == ROWS
    assert [where for where, _ in rows] == [f"{name}, row 1", f"{name}, row 2"]


def test_rows_are_counted_as_an_editor_counts_lines(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '\n{"q": 1}\n\n{"q": 2}\n')
    assert [where for where, _ in read_rows(path, ["q"])] == ["a.jsonl, row 2", "a.jsonl, row 4"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"q": 1}\n{"q": \n', "a.jsonl, row 2: not JSON"),
        ("a.jsonl", '{"q": 1}\n[1]\n', "a.jsonl, row 2: expected an object, got list"),
        ("a.jsonl", '{"q": 1}\n{"Q": 1, "b": 2}\n', "a.jsonl, row 2: no column 'q'; it has: Q, b"),
        ("a.jsonl", "{}\n", "a.jsonl, row 1: no column 'q'; it has: none"),
        ("a.jsonl", '{"q": NaN}\n', "a.jsonl, row 1: not JSON"),
        ("a.jsonl", '{"q": "\\ud800"}\n', "a.jsonl, row 1: not JSON"),
        ("a.jsonl", "[" * 100_000, "a.jsonl, row 1: not JSON .nested too deeply"),
        ("a.jsonl", b'{"q": "\xff"}\n', "a.jsonl: cannot be read"),
        ("a.jsonl.gz", b"no gzip", "a.jsonl.gz: cannot be read"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-12], "a.jsonl.gz: cannot be read"),
        ("a.json", '{"q": 1}', "a.json: expected a list of objects, got dict"),
        ("a.json", '[{"q": 1}, "{}"]', "a.json, row 2: expected an object, got str"),
        ("a.json", "[", "a.json: not JSON"),
    ],
)
def test_a_malformed_file_names_itself_and_the_row(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        list(read_rows(put(tmp_path, name, content), ["q"]))


def test_a_data_file_is_found_as_given_or_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "a.jsonl", "")
    monkeypatch.delenv("ENVGYM_DATA", raising=False)
    assert data_path(path) == Path(path)
    with pytest.raises(
        DataError, match=r"no data file 'a.jsonl'.*ENVGYM_DATA, the folder of data files, is not set"
    ):
        data_path("a.jsonl")
    monkeypatch.setenv("ENVGYM_DATA", str(tmp_path))
    assert data_path("a.jsonl") == Path(path)
    with pytest.raises(DataError, match=f"looked for b.jsonl, {tmp_path}/b.jsonl"):
        data_path("b.jsonl")


@pytest.mark.parametrize("name", ["", "~no such user/a", "x" * 5000, "a\0b", "."])
def test_what_cannot_name_a_file_is_not_found_and_does_not_crash(name: str) -> None:
    with pytest.raises(DataError, match="no data file"):
        data_path(name)
