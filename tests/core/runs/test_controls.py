"""The table of controls says who gained what, and the verdict in words; the report shows the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envgym.config import Section
from envgym.runs.controls import controls_rows, controls_table, request_controls, requested_controls
from envgym.runs.folder import RunFolder
from envgym.runs.report import render_report


class Recipe(Section):
    note: str = ""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", Recipe(), seed=0)


def interval(mean: float | None) -> dict[str, Any]:
    return {"mean": mean, "low": mean, "high": mean, "n": 0 if mean is None else 9}


def row(after: float | None, gain: float | None, rate: float) -> dict[str, Any]:
    part = {"before": interval(0.1), "after": interval(after), "gain": interval(gain)}
    return {"overall": {"greedy": part, "sampled": part}, "learning_rate": rate, "run": "."}


def record() -> dict[str, Any]:
    part = {
        "gain": interval(0.6),
        "best_control": "coin",
        "control_gain": interval(0.1),
        "share": 1 / 6,
        "over_control": interval(0.5),
        "over_start": interval(0.4),
        "explained": "no",
    }
    return {
        "rows": {"trained": row(0.7, 0.6, 1e-3), "coin": row(0.2, 0.1, 1e-4), "lost": row(None, None, 1e-3)},
        "best_of_start": {
            "best": "0.5",
            "temperatures": {"0": {"overall": interval(0.2)}, "0.5": {"overall": interval(0.3)}},
        },
        "not_run": {"wrong_label": "<b>deaf</b>"},
        "verdict": {
            "decodings": {"greedy": part, "sampled": {**part, "share": None}},
            "explained": "no",
            "because": ["greedy: coin gains 17% of it"],
        },
    }


def test_a_row_for_every_contender() -> None:
    heading, trained, coin, lost, greedy, start = controls_rows(record())
    assert heading == [
        "held-out reward", "greedy after", "greedy gain", "sampled after", "sampled gain", "rate"
    ]  # fmt: skip
    assert trained == ["trained", *["0.700 [0.700, 0.700]", "0.600 [0.600, 0.600]"] * 2, "0.001"]
    assert (coin[0], coin[-1]) == ("coin", "0.0001")
    assert lost[1:5] == ["-"] * 4
    assert greedy == ["start, greedy", *["0.200 [0.200, 0.200]", "-"] * 2, "-"]
    assert start == ["start at its best, T = 0.5", *["0.300 [0.300, 0.300]", "-"] * 2, "-"]


def test_the_verdict_says_who_gained_what() -> None:
    *_, greedy, sampled, lost, verdict = controls_table(record()).replace("\n  ", " ").splitlines()
    assert greedy.startswith("greedy: trained gains 0.600 [0.600, 0.600]; best control, coin: 0.100")
    assert "(17% of it); trained minus that control: 0.500" in greedy
    assert greedy.endswith("minus best of start: 0.400 [0.400, 0.400]")
    assert "% of it" not in sampled
    assert lost == "not run: wrong_label: <b>deaf</b>"
    assert verdict == "explained by a control: no (greedy: coin gains 17% of it)"


def test_the_report_shows_the_same_table(folder: RunFolder) -> None:
    assert "Controls" not in render_report(folder).read_text()
    (folder.path / "controls.json").write_text(json.dumps({"schema": 1, **record()}))
    html = render_report(folder).read_text()
    for cells in controls_rows(record()):
        assert all(cell in html for cell in cells)
    assert "explained by a control: no" in html
    assert "&lt;b&gt;deaf" in html
    assert "<b>deaf" not in html


def test_what_was_asked_for_stays_with_the_run(folder: RunFolder) -> None:
    assert requested_controls(folder) == []
    request_controls(folder, ["coin"])
    request_controls(folder, ["lost", "coin"])
    assert requested_controls(folder) == ["coin", "lost"]


def test_a_damaged_comparison_is_named(folder: RunFolder) -> None:
    assert folder.comparison() is None
    assert folder.damage.lines() == []
    for damaged in ("{", "null", json.dumps({**record(), "rows": {"trained": {}}}), json.dumps({"rows": {}})):
        (folder.path / "controls.json").write_text(damaged)
        assert folder.comparison() is None
        assert folder.damage.lines()[0].startswith("controls.json was skipped: it cannot be read (")
        assert "controls.json was skipped" in render_report(folder).read_text()
