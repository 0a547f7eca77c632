"""The before/after table of a run, as plain text."""

from __future__ import annotations

from typing import Any

__all__ = ["interval_text", "summary_table"]


def interval_text(interval: dict[str, Any] | None) -> str:
    """Format an interval as ``0.512 [0.430, 0.594]``, or ``-`` if nothing was measured."""
    if not interval or interval["mean"] is None:
        return "-"
    return f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def summary_table(summary: dict[str, Any]) -> str:
    """Return the table of held-out rewards, per environment and overall: before, after, paired gain, intervals."""
    rows = [("held-out reward", "before", "after", "gain", "n")]
    overall = {"overall": summary["overall"]} if "overall" in summary else {}
    for label, record in (summary["environments"] | overall).items():
        cells = [interval_text(record.get(key)) for key in ("before", "after", "gain")]
        rows.append((label, *cells, str(record["after"]["n"])))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    left_out = [f"left out: {name}: {why}" for name, why in summary.get("left_out", {}).items()]
    return "\n".join([line.rstrip() for line in lines] + left_out)
