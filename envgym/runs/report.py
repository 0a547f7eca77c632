"""One self-contained HTML file per run: table, curves, sample trajectories. Works on a run that crashed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from envgym.runs.controls import comparison, controls_rows, verdict_lines
from envgym.runs.folder import RunFolder, write_atomic
from envgym.runs.table import best_text, interval_text, table_rows

__all__ = ["render_report"]

_SAMPLES_PER_ENV = 3
_WIDTH, _HEIGHT = 640, 200


def render_report(folder: RunFolder) -> Path:
    """Write ``report.html`` from the records in the folder, and return its path.

    Raises:
        DataError: a record in the folder is damaged.
    """
    rows = folder.metrics()
    template = resources.files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["interval"] = interval_text
    summary = folder.summary()
    compared = comparison(folder)
    html = environment.from_string(template).render(
        name=folder.path.name,
        summary=summary,
        measured=table_rows(summary) if summary else [],
        best=best_text(summary) if summary else "",
        parts=list(_parts(summary)) if summary else [],
        controls=controls_rows(compared) if compared else [],
        verdict=verdict_lines(compared) if compared else [],
        charts=_charts(rows),
        samples=_samples(folder, rows),
        recipe=(folder.path / "recipe.toml").read_text(encoding="utf-8"),
        versions=(folder.path / "versions.json").read_text(encoding="utf-8"),
        width=_WIDTH,
        height=_HEIGHT,
    )
    path = folder.path / "report.html"
    write_atomic(path, html)
    return path


def _parts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    for label, record in summary["environments"].items():
        for decoding in summary.get("decodings", {}):
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
    by_env: dict[str, list[Any]] = {}
    for trajectory in folder.trajectories(int(rows[-1]["step"])):
        by_env.setdefault(trajectory.env, []).append(trajectory)
    found = []
    for label, trajectories in sorted(by_env.items()):
        trajectories.sort(key=lambda t: (t.failed, -t.reward if not t.failed else 0.0))
        picked = trajectories
        if len(trajectories) > _SAMPLES_PER_ENV:
            picked = [*trajectories[: _SAMPLES_PER_ENV - 1], trajectories[-1]]
        found += [{"env": label, "trajectory": t} for t in picked]
    return found
