"""A run's folder: its recipe, metrics, trajectories and checkpoints, readable after a crash at any instant.

``recipe.toml`` · ``versions.json`` · ``metrics.jsonl`` · ``trajectories/step-*.jsonl`` · ``checkpoints/`` ·
``evaluations/`` · ``summary.json`` · ``report.html``
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import pydantic
import tomli_w

from envgym.errors import DataError, UserError
from envgym.records import SCHEMA, Trajectory, from_json, to_json
from envgym.redaction import redacted_values, without_known_keys
from envgym.runs.durable import explain_full_disk, sync_folder, write_atomic
from envgym.runs.reading import Damage, parse_record, read_json, read_rows
from envgym.runs.shapes import ControlsRecord, MetricsRow, Summary

__all__ = ["RunFolder"]

_BLOCK = 2**16
_PACKAGES = ("envgym", "gymnasium", "numpy", "pydantic", "torch", "transformers", "tokenizers", "docker")


def _append(path: Path, lines: Iterable[str]) -> None:
    """Append whole lines, after removing a partial last line that a crash left."""
    new = not path.exists()
    with explain_full_disk(path), path.open("ab+") as file:
        file.truncate(_whole_lines(file))
        file.writelines(line.encode() + b"\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync_folder(path.parent)


def _whole_lines(file: BinaryIO) -> int:
    """Return the offset after the last whole line, in bytes."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


class RunFolder:
    """Reads and writes one run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = Damage(path)
        """What could not be read so far."""

    @classmethod
    def create(cls, path: Path, recipe: pydantic.BaseModel, seed: int) -> RunFolder:
        """Create the folder of a new run.

        Raises:
            UserError: the folder already holds a run, or cannot be made.
        """
        if (path / "recipe.toml").exists():
            raise UserError(
                f"{path} already holds a run; resume it (envgym train --resume {path}), "
                "name another folder with --out, or delete it"
            )
        try:
            (path / "trajectories").mkdir(parents=True, exist_ok=True)
            (path / "checkpoints").mkdir(exist_ok=True)
            (path / "evaluations").mkdir(exist_ok=True)
            sync_folder(path.parent)
        except OSError as error:
            raise UserError(f"no run folder can be made at {path}: {error.strerror}") from None
        folder = cls(path)
        write_atomic(path / "versions.json", json.dumps(_versions(seed), indent=2) + "\n")
        values = redacted_values(recipe.model_dump(mode="json", exclude_none=True))
        write_atomic(path / "recipe.toml", tomli_w.dumps(values))
        return folder

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Open the folder of a run that was begun.

        Raises:
            UserError: there is no run in that folder.
        """
        if not _exists(path / "recipe.toml"):
            raise UserError(f"no run in {path}: it has no recipe.toml")
        return cls(path)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    def evaluation(self, when: str) -> Path:
        """Return the path of a held-out evaluation: ``before``, ``after`` or ``step-000010``."""
        return self.path / "evaluations" / f"{when}.json"

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Append one row of numbers to ``metrics.jsonl``; one that is not finite becomes null."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        _append(self.path / "metrics.jsonl", [_metrics_line(finite)])

    def metrics(self) -> list[dict[str, Any]]:
        """Return every row of ``metrics.jsonl`` that can be read; ``damage`` knows of the others."""
        return list(read_rows(self.path / "metrics.jsonl", partial(parse_record, shape=MetricsRow), self.damage))

    def append_trajectories(self, step: int, trajectories: Iterable[Trajectory]) -> None:
        """Append the trajectories of one step, without the keys that the environment holds."""
        _append(self._trajectories_of(step), map(_without_keys, map(to_json, trajectories)))

    def trajectories(self, step: int) -> list[Trajectory]:
        """Return the trajectories of one step that can be read; ``damage`` knows of the others."""
        return list(read_rows(self._trajectories_of(step), partial(from_json, Trajectory), self.damage))

    def forget_after(self, step: int) -> None:
        """Drop what was recorded of steps after ``step``, which a resumed run plays again."""
        kept = [row for row in self.metrics() if row["step"] <= step]
        write_atomic(self.path / "metrics.jsonl", "".join(_metrics_line(row) + "\n" for row in kept))
        for path in (*self.path.glob("trajectories/step-*.jsonl"), *self.path.glob("evaluations/step-*.json")):
            of = path.stem.removeprefix("step-")
            if of.isdecimal() and int(of) > step and path.is_file():
                path.unlink()

    def write_summary(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Write ``summary.json`` with the versions added, and return it."""
        whole = redacted_values({**summary, "versions": self._read("versions.json") or {}})
        whole = json.loads(json.dumps(whole), parse_constant=lambda _: None)  # JSON has no NaN
        write_atomic(self.path / "summary.json", json.dumps({"schema": SCHEMA, **whole}, indent=2) + "\n")
        return dict(whole)

    def summary(self) -> dict[str, Any] | None:
        """Return what ``write_summary`` wrote; ``None`` where the run has not finished or the file is damaged."""
        return self._read("summary.json", Summary)

    def comparison(self) -> dict[str, Any] | None:
        """Return ``controls.json``; ``None`` where no controls were compared or the file is damaged."""
        return self._read("controls.json", ControlsRecord)

    def _read(self, name: str, shape: type[pydantic.BaseModel] | None = None) -> dict[str, Any] | None:
        path = self.path / name
        self.damage.forget(path)
        if not _exists(path):
            return None
        try:
            return read_json(path, shape)
        except DataError as error:
            self.damage.note(path, str(error).removeprefix(f"{path}: "))
            return None

    def _trajectories_of(self, step: int) -> Path:
        return self.path / "trajectories" / f"step-{step:06d}.jsonl"


def _exists(path: Path) -> bool:
    """Tell if there is something of that name, a folder or a broken link included."""
    try:
        return os.path.lexists(path)
    except ValueError:  # no valid file name
        return False


def _without_keys(line: str) -> str:
    """Return a record without the environment's keys; it stays one, whatever they are."""
    if without_known_keys(line) == line:
        return line
    return json.dumps(_cleaned(json.loads(line)))


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return without_known_keys(value)
        case dict():
            return {name: _cleaned(inner) for name, inner in value.items()}
        case list():
            return [_cleaned(inner) for inner in value]
        case _:
            return value


def _metrics_line(row: dict[str, Any]) -> str:
    return json.dumps({"schema": SCHEMA, **row})


def _versions(seed: int) -> dict[str, Any]:
    packages: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "schema": SCHEMA,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "packages": packages,
        "seed": seed,
    }
