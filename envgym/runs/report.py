"""One self-contained HTML file per run: table, curves, sample trajectories. Works on a run that crashed.

The page runs nothing and loads nothing: all text of a run is escaped, no part of it becomes an attribute, and a
policy in its head allows no script, no address and no style but its own.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from envgym.records import Message, Trajectory
from envgym.runs.controls import controls_rows, verdict_lines
from envgym.runs.durable import write_atomic
from envgym.runs.folder import RunFolder
from envgym.runs.reading import read_shown
from envgym.runs.table import best_text, interval_text, table_rows
from envgym.terminal import shown

__all__ = ["render_report"]

_SAMPLES_PER_ENV = 3
_MAX_ENVS = 50
_MAX_TEXT = 50_000
"""Characters shown of one message."""
_WIDTH, _HEIGHT = 640, 200


def render_report(folder: RunFolder) -> Path:
    """Write ``report.html`` from the records in the folder, and return its path.

    What cannot be read is left out; the page says so, and ``folder.damage`` knows.

    Raises:
        UserError: the report cannot be written.
    """
    rows = folder.metrics()
    summary = folder.summary()
    compared = folder.comparison()
    values = {
        "name": folder.path.name,
        "summary": summary,
        "measured": table_rows(summary) if summary else [],
        "best": best_text(summary) if summary else "",
        "parts": list(_parts(summary)) if summary else [],
        "controls": controls_rows(compared) if compared else [],
        "verdict": verdict_lines(compared) if compared else [],
        "charts": _charts(rows),
        "samples": _samples(folder, rows),
        "recipe": read_shown(folder.path / "recipe.toml", folder.damage),
        "versions": read_shown(folder.path / "versions.json", folder.damage),
    }
    path = folder.path / "report.html"
    write_atomic(path, _template().render(values, damage=folder.damage.lines()))
    return path


@functools.cache
def _template() -> jinja2.Template:
    files = resources.files(__package__)
    style = files.joinpath("report.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=_shown)
    environment.filters["interval"] = interval_text
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment.globals.update(style=style, style_hash=digest, width=_WIDTH, height=_HEIGHT)
    return environment.from_string(files.joinpath("report.html.jinja").read_text(encoding="utf-8"))


def _shown(value: Any) -> Any:
    return shown(value) if type(value) is str else value


def _parts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    for label, record in summary["environments"].items():
        for decoding in summary.get("decodings") or {}:
            for name, part in record[decoding].get("parts", {}).items():
                yield label, decoding, name, part


def _charts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = sorted({name for row in rows for name in row if name.startswith("reward/")})
    names += ["entropy", "loss", "grad_norm", "tokens_per_second"]
    points = {n: [(row["step"], row[n]) for row in rows if row.get(n) is not None] for n in names}
    return [_chart(name, there) for name, there in points.items() if there]


def _chart(name: str, points: list[tuple[float, float]]) -> dict[str, Any]:
    steps = [step for step, _ in points]
    values = [value for _, value in points]
    low, high = min(values), max(values)
    if name.startswith("reward/"):
        low, high = min(low, 0.0), max(high, 1.0)
    across, up = max(1.0, steps[-1] - steps[0]), (high - low) or 1.0
    line = " ".join(
        f"{(s - steps[0]) / across * _WIDTH:.1f},{_HEIGHT - (v - low) / up * _HEIGHT:.1f}" for s, v in points
    )
    return {"name": name, "line": line, "low": low, "high": high, "first": steps[0], "last": steps[-1]}


def _samples(folder: RunFolder, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a few trajectories of the last recorded step: the best and the worst of each environment."""
    if not rows:
        return []
    by_env: dict[str, list[Trajectory]] = {}
    for trajectory in folder.trajectories(rows[-1]["step"]):
        by_env.setdefault(trajectory.env, []).append(trajectory)
    found = []
    for label, trajectories in sorted(by_env.items())[:_MAX_ENVS]:
        trajectories.sort(key=lambda t: (t.failed, -t.reward if not t.failed else 0.0))
        picked = trajectories
        if len(trajectories) > _SAMPLES_PER_ENV:
            picked = [*trajectories[: _SAMPLES_PER_ENV - 1], trajectories[-1]]
        found += [
            {"env": label, "trajectory": t, "said": [(m.role, _said(m)) for m in t.messages]} for t in picked
        ]
    return found


def _said(message: Message) -> str:
    """Return a message with its calls, as text."""
    calls = [
        f"\n→ {c.name or '?'}({c.error or json.dumps(c.arguments, ensure_ascii=False)})"
        for c in message.tool_calls
    ]
    text = shown(message.content + "".join(calls))
    rest = len(text) - _MAX_TEXT
    return text if rest <= 0 else f"{text[:_MAX_TEXT]}… ({rest:,} characters more)"
