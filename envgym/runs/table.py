"""The before/after table of a run, as plain text."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = [
    "best_text",
    "endings_text",
    "fitted",
    "interval_text",
    "rewards_text",
    "summary_table",
    "table_rows",
    "terminal_width",
    "wrapped",
]

_PROSE = 120
"""Columns that prose takes of a wider terminal; tables take all."""
_NARROWEST = 30


def terminal_width() -> int:
    """Return the number of columns that text may take: those of the terminal, and 80 where there is none."""
    return max(_NARROWEST, shutil.get_terminal_size().columns)


def wrapped(text: str, indent: str = "") -> str:
    """Return ``text`` in lines that fit the terminal, the second and later ones indented by two more."""
    return "\n".join(
        textwrap.wrap(
            text,
            min(_PROSE, terminal_width()),
            initial_indent=indent,
            subsequent_indent=f"{indent}  ",
            break_on_hyphens=False,
            break_long_words=False,
        )
    )


def fitted(rows: Sequence[Sequence[str]], titles: int = 1) -> str:
    """Return a table that fits the terminal: in columns, or else a block of lines for each row.

    Args:
        rows: cells of equally long rows, the heading first.
        titles: number of the first cells that say what a row is about; they become the first line of its block.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if max(map(len, lines)) <= terminal_width():
        return "\n".join(lines)
    return "\n".join(line for row in rows[1:] for line in _block(rows[0], row, titles))


def _block(heading: Sequence[str], row: Sequence[str], titles: int) -> Iterator[str]:
    """Yield the lines of one row, without the cells that are empty."""
    yield wrapped(", ".join(filter(None, row[:titles])))
    width = max(map(len, heading[titles:]))
    for name, cell in zip(heading[titles:], row[titles:], strict=True):
        if cell:
            yield wrapped(f"{name:<{width}}  {cell}", "  ")


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
    table = fitted(table_rows(summary), titles=2)
    notes = [
        f"{name}: temperature {temperature:g}" for name, temperature in (summary.get("decodings") or {}).items()
    ]
    left_out = [f"left out: {name}: {why}" for name, why in summary.get("left_out", {}).items()]
    warnings = [f"warning: {text}" for text in summary.get("warnings", ())]
    below = filter(None, ["; ".join(notes), best_text(summary)])
    return "\n".join([table, *map(wrapped, (*below, *left_out, *warnings))])


def _not_completed(ended: Mapping[str, Mapping[str, float]]) -> str:
    said = {when: endings_text(counts) for when, counts in ended.items()}
    return "; ".join(f"{when} {text}" for when, text in said.items() if text)
