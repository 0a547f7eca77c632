"""Tables fit the terminal, whatever they hold, and lose nothing."""

from __future__ import annotations

import os
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envgym.runs.table import fitted, summary_table, wrapped

CELLS = st.sampled_from(["", "-", "a", "0.512 [0.430, 0.594]", "ab-cd:e fg", "a bb ccc dddd eeeee ffffff " * 4])
TABLES = st.integers(2, 6).flatmap(
    lambda columns: st.lists(st.lists(CELLS, min_size=columns, max_size=columns), min_size=2, max_size=4)
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=TABLES, width=st.integers(40, 200))
def test_no_line_is_longer_than_the_terminal_and_no_cell_is_lost(rows: list[list[str]], width: int) -> None:
    rows[0] = [f"h{i}" for i in range(len(rows[0]))]
    with mock.patch.dict(os.environ, {"COLUMNS": str(width)}):
        text = fitted(rows)
    assert all(len(line) <= width for line in text.splitlines())
    assert sorted(word.rstrip(",") for row in rows[1:] for cell in row for word in cell.split()) == sorted(
        word.rstrip(",") for word in text.split() if word not in rows[0]
    )


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("label", ["math_problems", "an_environment_with_a_rather_long_name", "s"])
def test_the_table_of_a_run_fits(width: int, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    interval = {"mean": 0.5123, "low": 0.43, "high": 0.5941, "n": 64}
    row = {"before": interval, "after": interval, "gain": interval}
    ended = {"before": {"completed": 3, "truncated: tokens": 1}, "after": {"completed": 1, "failed: ToolError": 3}}
    table = summary_table(
        {
            "decodings": {"greedy": 0.0, "sampled": 1.0},
            "environments": {label: {"greedy": {**row, "ended": ended}, "sampled": row}},
            "warnings": [
                f"{label}: 75% of the episodes did not complete after training, and the mean says little"
            ],
        }
    )
    assert all(len(line) <= width for line in table.splitlines()), table
    assert table.count("0.512 [0.430, 0.594]") == 6
    assert f"{label}, greedy" in table or f"{label}  greedy" in table


def test_a_table_that_fits_is_in_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert fitted([["name", "n"], ["sums", "12"]]) == "name  n\nsums  12"
    monkeypatch.setenv("COLUMNS", "30")
    wide = [["name", "first", "second"], ["sums", "x" * 14, "y" * 14]]
    assert fitted(wide) == f"sums\n  first   {'x' * 14}\n  second  {'y' * 14}"


def test_a_long_word_such_as_a_command_s_path_is_left_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    path = "/a/rather/long/path-with-hyphens/to/the/folder/of/a/run"
    assert path in wrapped(f"resume with: envgym train --resume {path}").split()
