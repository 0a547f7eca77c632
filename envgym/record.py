"""A run's folder: what a run leaves behind, readable after a crash at any instant.

``recipe.toml`` · ``versions.json`` · ``metrics.jsonl`` · ``trajectories/step-*.jsonl`` · ``checkpoints/`` ·
``summary.json`` · ``report.html``
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pydantic
import tomli_w

from envgym.data import Trajectory, from_json, to_json
from envgym.errors import UserError

__all__ = ["RunFolder", "read_jsonl", "write_atomic"]

_PACKAGES = ("envgym", "gymnasium", "numpy", "pydantic", "torch", "transformers", "tokenizers", "docker")


def write_atomic(path: Path, text: str) -> None:
    """Write a whole file or nothing: a reader never sees half of it."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file; a last line that a crash cut short is left out."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


class RunFolder:
    """Reads and writes one run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, recipe: pydantic.BaseModel, seed: int) -> RunFolder:
        """Begin a new run.

        Raises:
            UserError: the folder already holds a run.
        """
        if (path / "recipe.toml").exists():
            raise UserError(
                f"{path} already holds a run; go on with it (envgym train --resume {path}), "
                "name another folder with --out, or delete it"
            )
        (path / "trajectories").mkdir(parents=True, exist_ok=True)
        (path / "checkpoints").mkdir(exist_ok=True)
        folder = cls(path)
        write_atomic(path / "versions.json", json.dumps(_versions(seed), indent=2) + "\n")
        values = recipe.model_dump(mode="json", exclude_none=True)
        write_atomic(path / "recipe.toml", tomli_w.dumps(values))
        return folder

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Open a run that was begun.

        Raises:
            UserError: there is no run in that folder.
        """
        if not (path / "recipe.toml").is_file():
            raise UserError(f"no run in {path}: it has no recipe.toml")
        return cls(path)

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go."""
        return self.path / "checkpoints"

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Add one row to ``metrics.jsonl``."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Every row of ``metrics.jsonl``."""
        return list(read_jsonl(self.path / "metrics.jsonl"))

    def append_trajectories(self, step: int, trajectories: Iterable[Trajectory]) -> None:
        """Keep the trajectories of one step."""
        with (self.path / "trajectories" / f"step-{step:06d}.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(to_json(t) + "\n" for t in trajectories)

    def trajectories(self, step: int) -> list[Trajectory]:
        """The trajectories of one step; a last one that a crash cut short is left out."""
        path = self.path / "trajectories" / f"step-{step:06d}.jsonl"
        if not path.is_file():
            return []
        with path.open(encoding="utf-8") as lines:
            return [from_json(Trajectory, line) for line in lines if line.endswith("\n")]

    def forget_after(self, step: int) -> None:
        """Drop metrics and trajectories of steps after ``step``: a resumed run makes them again."""
        kept = [row for row in self.metrics() if row.get("step", 0) <= step]
        write_atomic(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
        for path in (self.path / "trajectories").glob("step-*.jsonl"):
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()

    def write_summary(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Write ``summary.json`` with the versions added, and return it."""
        versions = json.loads((self.path / "versions.json").read_text(encoding="utf-8"))
        whole = {**summary, "versions": versions}
        write_atomic(self.path / "summary.json", json.dumps(whole, indent=2) + "\n")
        return whole

    def summary(self) -> dict[str, Any] | None:
        """What ``write_summary`` wrote, or ``None`` for a run that has not finished."""
        path = self.path / "summary.json"
        if not path.is_file():
            return None
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return summary


def _versions(seed: int) -> dict[str, Any]:
    packages: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "packages": packages,
        "seed": seed,
    }
