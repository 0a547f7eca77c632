"""The controls of a run: which were asked for, and the table of how they compare.

They live in the run's folder: ``controls/requested.json``, a run folder for every try, and ``controls.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from envgym.records import SCHEMA
from envgym.runs.durable import write_atomic
from envgym.runs.folder import RunFolder
from envgym.runs.reading import read_json
from envgym.runs.shapes import Requested
from envgym.runs.table import fitted, interval_text, wrapped

__all__ = [
    "controls_rows",
    "controls_table",
    "request_controls",
    "requested_controls",
    "verdict_lines",
]


def request_controls(folder: RunFolder, names: Sequence[str]) -> None:
    """Keep with the run that these controls belong to it, so that a resumed run plays them, too."""
    path = folder.path / "controls" / "requested.json"
    path.parent.mkdir(exist_ok=True)
    known = requested_controls(folder)
    write_atomic(path, json.dumps({"schema": SCHEMA, "controls": list(dict.fromkeys([*known, *names]))}) + "\n")


def requested_controls(folder: RunFolder) -> list[str]:
    """Return the controls that were asked for; none by default.

    Raises:
        DataError: the file is damaged.
    """
    path = folder.path / "controls" / "requested.json"
    return list(read_json(path, Requested)["controls"]) if path.exists() else []


def controls_rows(record: dict[str, Any]) -> list[list[str]]:
    """Return the cells of the table, the heading first: overall held-out reward, a row for each contender."""
    decodings = list(record["verdict"]["decodings"])
    heading = ["held-out reward", *(f"{d} {part}" for d in decodings for part in ("after", "gain")), "rate"]
    rows = [heading]
    for name, row in record["rows"].items():
        cells = [interval_text(row["overall"][d][part]) for d in decodings for part in ("after", "gain")]
        rows.append([name, *cells, f"{row['learning_rate']:.3g}"])
    temperatures, best = (record["best_of_start"][key] for key in ("temperatures", "best"))
    for name, temperature in (("start, greedy", "0"), (f"start at its best, T = {best}", best)):
        overall = interval_text(temperatures[temperature]["overall"])
        rows.append([name, *(text for _ in decodings for text in (overall, "-")), "-"])
    return rows


def controls_table(record: dict[str, Any]) -> str:
    """Return the table and the verdict, as plain text."""
    return "\n".join([fitted(controls_rows(record)), *map(wrapped, verdict_lines(record))])


def verdict_lines(record: dict[str, Any]) -> list[str]:
    """Return the verdict in words, a line for each way of decoding and one for the whole."""
    lines = []
    for decoding, found in record["verdict"]["decodings"].items():
        share = "" if found["share"] is None else f" ({found['share']:.0%} of it)"
        lines.append(
            f"{decoding}: trained gains {interval_text(found['gain'])}; best control, {found['best_control']}: "
            f"{interval_text(found['control_gain'])}{share}; trained minus that control: "
            f"{interval_text(found['over_control'])}; minus best of start: {interval_text(found['over_start'])}"
        )
    lines += [f"not run: {name}: {why}" for name, why in record["not_run"].items()]
    lines.append(
        f"explained by a control: {record['verdict']['explained']} ({'; '.join(record['verdict']['because'])})"
    )
    return lines
