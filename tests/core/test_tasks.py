"""Splits share no problem; files say where they are wrong."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.data import Message, Split, Task, content_hash
from envgym.errors import DataError, UnknownNameError
from envgym.seeding import derive_rng, derive_seed
from envgym.tasks import ProceduralTasks, check_split, data_path, read_rows, split_of, stable_id

ROWS = [{"q": "1 + 1?", "a": 2}, {"q": "zwei\u2028drei", "a": 3}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def generate(rng: random.Random, split: Split) -> Task:
    a, b = rng.randrange(40), rng.randrange(40)
    return Task(id=f"{a}+{b}", split=split, messages=(Message(role="user", content=f"{a} + {b}?"),))


@settings(deadline=None, max_examples=6)
@given(seeds=st.tuples(st.integers(), st.integers()))
def test_splits_share_no_problem_whatever_their_seeds(seeds: tuple[int, int]) -> None:
    train, held_out = (
        ProceduralTasks(generate, split, 60, seed)
        for split, seed in zip(("train", "held_out"), seeds, strict=True)
    )
    assert not {content_hash(t) for t in train} & {content_hash(t) for t in held_out}
    assert {t.split for t in train} == {"train"} == {split_of(t) for t in train}


def test_one_problem_in_five_is_held_out() -> None:
    every_one = [generate(random.Random(i), "train") for i in range(2000)]
    share = sum(split_of(t) == "held_out" for t in every_one) / len(every_one)
    assert 0.16 < share < 0.24


def test_a_procedural_list_is_a_sequence() -> None:
    tasks = ProceduralTasks(generate, "train", 10)
    assert len(tasks) == len(list(tasks)) == 10
    assert tasks[-1] == tasks[9]
    assert tasks[2:4] == [tasks[2], tasks[3]]
    assert list(ProceduralTasks(generate, "train", 10)) == list(tasks)
    assert list(ProceduralTasks(generate, "train", 10, seed=1)) != list(tasks)
    for outside in (10, -11):
        with pytest.raises(IndexError):
            tasks[outside]


def test_a_generator_with_too_few_problems_is_an_error_and_not_a_hang() -> None:
    def one(_: random.Random, split: Split) -> Task:
        return Task(id="only", split=split, messages=(Message(role="user", content="?"),))

    other: Split = "train" if split_of(one(random.Random(), "train")) == "held_out" else "held_out"
    with pytest.raises(DataError, match="too few problems"):
        ProceduralTasks(one, other, 5)[0]


def test_an_unknown_split_is_told_the_known_ones() -> None:
    assert check_split("train") == "train"
    with pytest.raises(UnknownNameError, match=r"did you mean 'held_out'.*train"):
        check_split("heldout")


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


def test_seeds_and_ids_depend_on_every_name_and_on_nothing_else() -> None:
    """Constants of an earlier process: a run can be repeated."""
    assert derive_seed("episode", 0, "math") == 1896896854951812470
    assert stable_id("a", "b") != stable_id("ab") != stable_id("a\x00", "b")
    assert len({derive_seed(*names) for names in (("a", 1), ("a", "1"), ("a1",), (1, "a"))}) == 4
    assert derive_rng("x").random() == derive_rng("x").random()
