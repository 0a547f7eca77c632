"""The before/after table of a run, as plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["best_text", "endings_text", "interval_text", "rewards_text", "summary_table", "table_rows"]


def interval_text(interval: dict[str, Any] | None) -> str:
    """Format an interval as ``0.512 [0.430, 0.594]``, or ``-`` if nothing was measured."""
    if not interval or interval["mean"] is None:
        return "-"
    return f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def endings_text(ended: Mapping[str, float]) -> str:
    """Return the shares of episodes that did not complete, by cause, e.g. ``12% cut: tokens``; ``""`` for none."""
    total = sum(ended.values())
    said = {e: e.replace("truncated", "cut", 1) for e, count in ended.items() if count and e != "completed"}
    return ", ".join(f"{ended[ending] / total:.0%} {words}" for ending, words in sorted(said.items()))


def rewards_text(rewards: Mapping[str, float | None], ended: Mapping[str, Mapping[str, float]]) -> str:
    """Return mean rewards with the endings behind each, e.g. ``sums 0.50 (12% cut: tokens) code -``."""
    said = {label: endings_text(ended.get(label, {})) for label in rewards}
    means = {label: "-" if mean is None else f"{mean:.2f}" for label, mean in rewards.items()}
    return " ".join(f"{label} {means[label]}{f' ({said[label]})' if said[label] else ''}" for label in rewards)


def best_text(summary: Mapping[str, Any]) -> str:
    """Return where the best weights of a run are, e.g. ``best: step 10, greedy 0.840, checkpoints/best``.

    ``""`` for a run that kept none: it did not measure while it trained.
    """
    best = summary.get("best")
    return f"best: step {best['step']}, greedy {best['reward']:.3f}, checkpoints/best" if best else ""


def table_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the cells of the table, the heading first: a row per environment and overall, for each decoding."""
    rows: list[tuple[str, ...]] = [
        ("held-out reward", "decoding", "before", "after", "gain", "n", "not completed")
    ]
    records = dict(summary["environments"])
    if "overall" in summary:
        records["overall"] = summary["overall"]
    # A stage that measures in one way only has no decodings, and its records no parts for them.
    decodings = summary.get("decodings")
    for decoding in [""] if decodings is None else decodings:
        for label, record in records.items():
            found = record[decoding] if decoding else record
            cells = [interval_text(found.get(key)) for key in ("before", "after", "gain")]
            rows.append(
                (label, decoding, *cells, str(found["after"]["n"]), _not_completed(found.get("ended", {})))
            )
    return rows


def summary_table(summary: dict[str, Any]) -> str:
    """Return the table of held-out rewards before and after with the paired gain, and the run's warnings."""
    rows = table_rows(summary)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    notes = [
        f"{name}: temperature {temperature:g}" for name, temperature in (summary.get("decodings") or {}).items()
    ]
    left_out = [f"left out: {name}: {why}" for name, why in summary.get("left_out", {}).items()]
    warnings = [f"warning: {text}" for text in summary.get("warnings", ())]
    below = filter(None, ["; ".join(notes), best_text(summary)])
    return "\n".join([*(line.rstrip() for line in lines), *below, *left_out, *warnings])


def _not_completed(ended: Mapping[str, Mapping[str, float]]) -> str:
    said = {when: endings_text(counts) for when, counts in ended.items()}
    return "; ".join(f"{when} {text}" for when, text in said.items() if text)
