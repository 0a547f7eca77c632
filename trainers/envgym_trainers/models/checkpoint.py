"""Checkpoints, written atomically; the newest two are kept."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from envgym.errors import DataError, UserError
from envgym.records import SCHEMA
from envgym.runs.durable import explain_full_disk, replace_durably, sync_tree
from envgym.runs.folder import RunFolder, read_json
from envgym_trainers.models.language_model import LanguageModel

__all__ = ["Checkpoint", "keep_best", "latest_checkpoint", "restoring", "save_checkpoint"]

_KEPT = 2
_DRAFT = ".draft"
_MANIFEST = "manifest.json"
_NEEDED = ("state.json", "tensors.pt", "model/config.json")
_BLOCK = 2**20
_MISFITS = (KeyError, TypeError, ValueError, RuntimeError, AttributeError, EOFError, pickle.UnpicklingError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One checkpoint on disk."""

    folder: Path

    @property
    def model(self) -> Path:
        """Folder that ``load_model`` reads."""
        return self.folder / "model"

    def state(self) -> dict[str, Any]:
        """Return the stage's state as saved."""
        return read_json(self.folder / "state.json")

    def tensors(self) -> dict[str, Any]:
        """Return the saved ``Updater.state`` on the CPU; ``restore`` moves it to the device."""
        tensors: dict[str, Any] = torch.load(self.folder / "tensors.pt", weights_only=True, map_location="cpu")
        return tensors


def latest_checkpoint(folder: Path, say: Callable[[str], None] = lambda _: None) -> Checkpoint | None:
    """Return the newest checkpoint in ``folder`` that is whole, or ``None`` if there is no checkpoint.

    Args:
        folder: folder of all checkpoints.
        say: told of each newer one that is damaged.

    Raises:
        UserError: all of them are damaged; each is named with what is wrong.
    """
    faults: list[str] = []
    for path in reversed(_complete(folder)):
        fault = _fault(path)
        if not fault:
            for damaged in faults:
                say(f"{damaged}; going back to {path.name}")
            return Checkpoint(folder=path)
        faults.append(f"checkpoint {path.name} is damaged: {fault}")
    if faults:
        raise UserError(f"no checkpoint in {folder} can be used: {'; '.join(faults)}")
    return None


@contextlib.contextmanager
def restoring(checkpoint: Checkpoint) -> Iterator[None]:
    """Turn the errors of a checkpoint that does not belong to the run into a ``UserError``."""
    try:
        yield
    except _MISFITS as error:
        raise UserError(
            f"{checkpoint.folder} is not a checkpoint of this recipe and this model ({type(error).__name__}: "
            f"{error!s:.200}); restore the folder as the run wrote it, or delete it to go back to the one before"
        ) from error


def save_checkpoint(
    folder: Path, step: int, language_model: LanguageModel, tensors: dict[str, Any], state: dict[str, Any]
) -> None:
    """Write the checkpoint of ``step``. A kill or a power cut at any instant leaves the earlier ones intact.

    Args:
        folder: folder of all checkpoints.
        step: number of steps done.
        language_model: the trained model.
        tensors: nested containers of tensors and numbers.
        state: JSON values.

    Raises:
        UserError: it could not be written, e.g. because the disk is full. The earlier ones are intact.
    """
    final = folder / f"step-{step:06d}"
    with _draft_of(final) as draft:
        language_model.save(draft / "model")
        torch.save(tensors, draft / "tensors.pt")
        (draft / "state.json").write_text(json.dumps({"schema": SCHEMA, **state}), encoding="utf-8")
    for old in (*_complete(folder)[:-_KEPT], *folder.glob(f"*{_DRAFT}")):
        shutil.rmtree(old, ignore_errors=True)


def keep_best(folder: RunFolder, step: int, reward: float, language_model: LanguageModel) -> bool:
    """Keep the weights of ``step`` in ``checkpoints/best`` if no evaluation before had a higher reward.

    Returns:
        true if they were kept.
    """
    best = folder.checkpoints / "best"
    known = read_json(best / "best.json") if (best / "best.json").is_file() else None
    if known is not None and known["step"] < step and not reward > known["reward"]:
        return False
    with _draft_of(best) as draft:
        language_model.save(draft)
        (draft / "best.json").write_text(json.dumps({"schema": SCHEMA, "step": step, "reward": reward}))
    return True


@contextlib.contextmanager
def _draft_of(final: Path) -> Iterator[Path]:
    """Give an empty folder; then put it on disk with a manifest, and give it its final name.

    Raises:
        UserError: something in it could not be written; nothing is left of it.
    """
    draft = final.with_name(final.name + _DRAFT)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with explain_full_disk(final):
            try:
                draft.mkdir(parents=True)
                yield draft
                _write_manifest(draft)
                sync_tree(draft)
            except (RuntimeError, SafetensorError) as error:  # how torch and safetensors report a failed write
                raise OSError(str(error)) from error
            shutil.rmtree(final, ignore_errors=True)
            replace_durably(draft, final)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _write_manifest(folder: Path) -> None:
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    sums = {name: {"bytes": path.stat().st_size, "crc32": _crc(path)} for name, path in files.items()}
    (folder / _MANIFEST).write_text(json.dumps({"schema": SCHEMA, "files": sums}), encoding="utf-8")


def _fault(folder: Path) -> str:
    """Return what is wrong with a checkpoint, or ``""``; one of an older envgym has no manifest."""
    if not (folder / _MANIFEST).is_file():
        missing = [name for name in _NEEDED if not (folder / name).is_file()]
        return f"{missing[0]} is missing" if missing else ""
    try:
        for name, expected in read_json(folder / _MANIFEST)["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
            if _crc(path) != expected["crc32"]:
                return f"{name} has changed"
    except (DataError, OSError, KeyError, TypeError, AttributeError) as error:
        return f"{error!s:.200}" if isinstance(error, DataError | OSError) else f"{_MANIFEST} is not a manifest"
    return ""


def _crc(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total = zlib.crc32(block, total)
    return total


def _complete(folder: Path) -> list[Path]:
    """List complete checkpoints by step; a draft, which a kill can leave, has another form of name."""
    return sorted(
        (path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()),
        key=lambda path: int(path.name.removeprefix("step-")),
    )
