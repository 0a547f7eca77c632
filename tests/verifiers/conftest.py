"""Data for the tests of the verifiers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envgym.verifiers import Verdict, verify_math

_HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def labelled() -> Callable[[str], list[dict[str, Any]]]:
    """Rows of a labelled set: prediction, gold, kind and, where they apply, unit, percent, rounded."""

    def load(name: str) -> list[dict[str, Any]]:
        lines = (_HERE / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    return load


@pytest.fixture(scope="session")
def verify_row() -> Callable[[dict[str, Any]], Verdict]:
    """Verify one labelled row under its own metadata, with time enough on a busy machine."""

    def verify(row: dict[str, Any]) -> Verdict:
        options = {name: row[name] for name in ("unit", "percent", "rounded") if name in row}
        return verify_math(row["prediction"], row["gold"], timeout=10.0, **options)

    return verify


@pytest.fixture(scope="session")
def gsm8k_golds() -> list[str]:
    """The final answers of all 8,792 GSM8K problems."""
    folder = Path(os.environ.get("ENVGYM_DATA") or _HERE.parents[2] / "shared" / "data")
    paths = [folder / "gsm8k_train.jsonl", folder / "gsm8k_test.jsonl"]
    if not all(path.exists() for path in paths):
        pytest.skip(f"GSM8K is not in {folder}; set ENVGYM_DATA to the folder that holds it")
    rows = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["answer"].rpartition("####")[2].strip() for row in rows]
