"""A run's folder: its recipe, metrics, trajectories and checkpoints, readable after a crash at any instant.

``recipe.toml`` · ``versions.json`` · ``metrics.jsonl`` · ``trajectories/step-*.jsonl`` · ``checkpoints/`` ·
``evaluations/`` · ``summary.json`` · ``report.html``
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pydantic
import tomli_w

from envgym.errors import DataError, UserError
from envgym.records import SCHEMA, Trajectory, check_schema, from_json, to_json
from envgym.runs.durable import explain_full_disk, sync_folder, write_atomic

__all__ = ["RunFolder", "read_json", "read_jsonl", "write_atomic"]

T = TypeVar("T")
_BLOCK = 2**16
_PACKAGES = ("envgym", "gymnasium", "numpy", "pydantic", "torch", "transformers", "tokenizers", "docker")


def read_jsonl(path: Path, decode: Callable[[str], T]) -> Iterator[T]:
    """Yield the rows of a JSONL file, none if there is no file; skip a last line that a crash cut short.

    Raises:
        DataError: a whole line cannot be read; file and row are named.
    """
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith(b"\n"):
                try:
                    yield decode(line.decode("utf-8"))
                except ValueError as error:
                    raise DataError(f"{path}, row {number}: cannot be read ({error!s:.200})") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a run wrote; check its schema version and drop it.

    Raises:
        DataError: it cannot be read, or a newer envgym wrote it; the file is named.
    """
    try:
        return _versioned(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error!s:.200})") from None


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
        values = recipe.model_dump(mode="json", exclude_none=True)
        write_atomic(path / "recipe.toml", tomli_w.dumps(values))
        return folder

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Open the folder of a run that was begun.

        Raises:
            UserError: there is no run in that folder.
        """
        if not (path / "recipe.toml").is_file():
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
        """Append one row to ``metrics.jsonl``; a number that is not finite becomes null."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        _append(self.path / "metrics.jsonl", [_metrics_line(finite)])

    def metrics(self) -> list[dict[str, Any]]:
        """Return every row of ``metrics.jsonl``.

        Raises:
            DataError: a row in the middle is damaged.
        """
        return list(read_jsonl(self.path / "metrics.jsonl", _versioned))

    def append_trajectories(self, step: int, trajectories: Iterable[Trajectory]) -> None:
        """Append the trajectories of one step."""
        _append(self._trajectories_of(step), map(to_json, trajectories))

    def trajectories(self, step: int) -> list[Trajectory]:
        """Return the trajectories of one step; skip a last one that a crash cut short.

        Raises:
            DataError: one in the middle is damaged.
        """
        return list(read_jsonl(self._trajectories_of(step), partial(from_json, Trajectory)))

    def forget_after(self, step: int) -> None:
        """Drop what was recorded of steps after ``step``, which a resumed run plays again."""
        kept = [row for row in self.metrics() if row.get("step", 0) <= step]
        write_atomic(self.path / "metrics.jsonl", "".join(_metrics_line(row) + "\n" for row in kept))
        for path in (self.path / "trajectories").glob("step-*.jsonl"):
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()
        for path in (self.path / "evaluations").glob("step-*.json"):
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()

    def write_summary(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Write ``summary.json`` with the versions added, and return it."""
        whole = {**summary, "versions": read_json(self.path / "versions.json")}
        write_atomic(self.path / "summary.json", json.dumps({"schema": SCHEMA, **whole}, indent=2) + "\n")
        return whole

    def summary(self) -> dict[str, Any] | None:
        """Return what ``write_summary`` wrote, or ``None`` for a run that has not finished."""
        path = self.path / "summary.json"
        if not path.is_file():
            return None
        return read_json(path)

    def _trajectories_of(self, step: int) -> Path:
        return self.path / "trajectories" / f"step-{step:06d}.jsonl"


def _metrics_line(row: dict[str, Any]) -> str:
    return json.dumps({"schema": SCHEMA, **row})


def _versioned(text: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(text)
    check_schema(values)
    values.pop("schema", None)
    return values


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
