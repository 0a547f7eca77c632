"""Data sets in the form of Hugging Face, from local folders; the real library reads them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from envgym.errors import DataError, UserError
from envgym.tasks.rows import read_rows

TRAIN = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(5)]
TEST = [{"question": "half of 9?", "answer": "4.5"}]


def saved_splits(folder: Path) -> None:
    splits = {"train": datasets.Dataset.from_list(TRAIN), "test": datasets.Dataset.from_list(TEST)}
    datasets.DatasetDict(splits).save_to_disk(folder)


def data_files(folder: Path) -> None:
    folder.mkdir()
    datasets.Dataset.from_list(TRAIN).to_parquet(folder / "train.parquet")
    datasets.Dataset.from_list(TEST).to_parquet(folder / "test.parquet")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("make", [saved_splits, data_files])
def test_a_split_of_a_folder(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "sums")
    rows = list(read_rows(f"hf:{tmp_path}/sums", ["question", "answer"]))
    assert [row for _, row in rows] == TRAIN
    assert [where for where, _ in rows][:2] == ["sums, row 1", "sums, row 2"]
    assert list(read_rows(f"hf:{tmp_path}/sums#test", ["question"])) == [("sums#test, row 1", TEST[0])]


def test_a_single_data_set(tmp_path: Path) -> None:
    datasets.Dataset.from_list(TEST).save_to_disk(tmp_path / "one")
    assert [row for _, row in read_rows(f"hf:{tmp_path}/one", [])] == TEST


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("/sums#dev", "no split 'dev'; it has: train, test"),
        ("/files#dev", "dev"),
        ("/nowhere", "no such folder"),
        ("/sums", "row 1: no column 'gold'; it has: question, answer"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, name: str, complaint: str) -> None:
    saved_splits(tmp_path / "sums")
    data_files(tmp_path / "files")
    with pytest.raises(DataError, match=complaint):
        list(read_rows(f"hf:{tmp_path}{name}", ["gold"]))


@pytest.mark.parametrize("row", [b"null", b"[1]", b'"text"', b"7", b"\xff\xfe{\0}\0"])
def test_a_row_that_is_no_object_is_refused_before_it_is_read(tmp_path: Path, row: bytes) -> None:
    """The library that reads the rows may end the process on one, where no error can be caught."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.jsonl").write_bytes(b'\n{"a": 1}\n' + row + b"\n")
    with pytest.raises(DataError, match=r"a\.jsonl: row 3: expected an object, got "):
        list(read_rows(f"hf:{tmp_path}", []))


def test_reading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No progress bar gets between the lines of a command, and the caller's own choice of bars is kept."""
    data_files(tmp_path / "files")
    capfd.readouterr()
    list(read_rows(f"hf:{tmp_path}/files", []))
    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"^hf:anything needs .* pip install 'envgym\[datasets\]'"):
        list(read_rows("hf:anything", []))
