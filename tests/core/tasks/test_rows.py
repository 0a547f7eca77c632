"""Rows are read from every kind of file and data set, and what is wrong is named."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from damage import damage_file

from envgym.errors import DataError
from envgym.tasks import rows as module
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
        ("a.jsonl", b'{"q": "\xff"}\n', "a.jsonl, row 1: is not UTF-8 text .byte 0xff at 7.: save it as UTF-8"),
        ("a.jsonl", LINES.encode("utf-16"), "a.jsonl, row 1: is not UTF-8 text .UTF-16."),
        ("a.json", LINES.encode("utf-16"), "a.json: is not UTF-8 text .UTF-16."),
        ("a.jsonl", '{"q": ' + "9" * 400 + "}\n", "a.jsonl, row 1: not JSON .an integer with too many digits"),
        ("a.jsonl", '{"q": ' + "9" * 5000 + "}\n", "a.jsonl, row 1: not JSON .an integer with too many digits"),
        ("a.jsonl", '{"q": 1}\nnull\n', "a.jsonl, row 2: expected an object, got NoneType"),
        ("a.jsonl", b'{"q": 1}\n\0\n', "a.jsonl, row 2: not JSON"),
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
    with pytest.raises(DataError, match=f"looked for 'b.jsonl', '{tmp_path}/b.jsonl'"):
        data_path("b.jsonl")


@pytest.mark.parametrize("name", ["", "~no such user/a", "x" * 5000, "a\0b", "."])
def test_what_cannot_name_a_file_is_not_found_and_does_not_crash(name: str) -> None:
    with pytest.raises(DataError, match="no data file"):
        data_path(name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(b"\n" * 5000, mtime=0), r"row 101: a file has at most 100 rows and 8 GiB; split it"),
        (gzip.compress(b" " * 5000, mtime=0), r"row 1: is longer than 0 MiB"),
        (gzip.compress(b'{"q": 1}\n' * 90 + b"x" * 2000, mtime=0), r"row 91: is longer than 0 MiB"),
    ],
)
def test_a_short_file_that_unpacks_to_a_long_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, words: str
) -> None:
    monkeypatch.setattr(module, "_MAX_ROWS", 100)
    monkeypatch.setattr(module, "_MAX_ROW", 1000)
    with pytest.raises(DataError, match=words):
        list(read_rows(put(tmp_path, "a.jsonl.gz", content), []))
    monkeypatch.setattr(module, "_MAX_LIST", 1000)
    with pytest.raises(DataError, match="is larger than 0 MiB; write one object a line, as .jsonl"):
        list(read_rows(put(tmp_path, "a.json.gz", content), []))


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_gives_rows_or_a_typed_error(tmp_path: Path, seed: int) -> None:
    """Nothing waits, nothing is run, and no other error gets out."""
    refused: list[tuple[str, str]] = []
    for number in range(250):
        rng = random.Random(f"{seed} {number}")
        name = rng.choice(("a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz"))
        content = LINES.encode() if "jsonl" in name else json.dumps(ROWS).encode()
        path = tmp_path / f"{number}{name}"
        path.write_bytes(content)
        if not name.endswith(".gz") or rng.random() < 0.5:
            damage_file(path, rng)
        if name.endswith(".gz") and path.is_file() and path.stat().st_size < 2**20:
            path.write_bytes(gzip.compress(path.read_bytes(), 1))
            if rng.random() < 0.5:
                damage_file(path, rng)
        try:
            for where, row in read_rows(str(path), ["q"]):
                assert isinstance(row, dict)
                assert path.name in where
        except DataError as error:
            refused.append((path.name, str(error)))
    assert 50 < len(refused) < 250
    assert not [told for told in refused if told[0] not in told[1]]
