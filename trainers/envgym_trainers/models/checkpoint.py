"""Checkpoints, written atomically; the newest two are kept."""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.distributed.device_mesh import DeviceMesh

from envgym.errors import UserError
from envgym.records import SCHEMA
from envgym.runs.durable import explain_full_disk, replace_durably, sync_tree
from envgym.runs.folder import RunFolder
from envgym.runs.reading import read_json
from envgym.runs.shapes import Best
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.manifest import fault_of, write_manifest
from envgym_trainers.models.shard_files import fill_outline

__all__ = ["Checkpoint", "keep_best", "latest_checkpoint", "restoring", "save_checkpoint"]

_KEPT = 2
_DRAFT = ".draft"
_SHARDS = "shards"
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

    def tensors(self, mesh: DeviceMesh | None = None) -> dict[str, Any]:
        """Return the saved ``Updater.state`` on the CPU; ``restore`` moves it to the device.

        Args:
            mesh: of the devices of several processes; what several processes wrote comes sharded over them.
        """
        # What one process wrote is mapped where several read it, as each needs a part.
        tensors: dict[str, Any] = torch.load(
            self.folder / "tensors.pt", weights_only=True, map_location="cpu", mmap=mesh is not None
        )
        if not (self.folder / _SHARDS).is_dir():
            return tensors
        return dict(fill_outline(self.folder / _SHARDS, tensors, mesh))

    def check(self, identity: Mapping[str, Any]) -> None:
        """Refuse a checkpoint of another run: what it says of itself in ``state.json`` must not differ.

        Raises:
            UserError: it says so; both values are named.
        """
        with restoring(self):
            known = dict(self.state().get("identity", {}))
        for name, was in known.items():
            if identity.get(name) != was:
                raise UserError(
                    f"{self.folder} is a checkpoint of a run with {name} = {was!r}, and recipe.toml says "
                    f"{identity.get(name)!r}: set it back, or begin a new run in another folder"
                )


def latest_checkpoint(folder: Path, say: Callable[[str], None] = warnings.warn) -> Checkpoint | None:
    """Return the newest checkpoint in ``folder`` that is whole, or ``None`` if there is no checkpoint.

    Args:
        folder: folder of all checkpoints.
        say: told of each newer one that is damaged; a warning by default.

    Raises:
        UserError: all of them are damaged; each is named with what is wrong.
    """
    faults: list[str] = []
    for path in reversed(_complete(folder)):
        fault = fault_of(path)
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
    folder: Path,
    step: int,
    language_model: LanguageModel,
    tensors: dict[str, Any],
    state: dict[str, Any],
    write_shards: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write the checkpoint of ``step``. A kill or a power cut at any instant leaves the earlier ones intact.

    Args:
        folder: folder of all checkpoints.
        step: number of steps done.
        language_model: the trained model.
        tensors: nested containers of tensors and numbers.
        state: JSON values.
        write_shards: writes the data of tensors that have none here into a folder.

    Raises:
        UserError: it could not be written, e.g. because the disk is full. The earlier ones are intact.
    """
    final = folder / f"step-{step:06d}"
    with _draft_of(final) as draft:
        with _writing(final / "model"):
            language_model.save(draft / "model")
        # Into a file of Python's, whose errors say what happened; torch's own say that a position was unexpected.
        with _writing(final / "tensors.pt"), (draft / "tensors.pt").open("wb") as file:
            torch.save(tensors, file)
        with _writing(final / _SHARDS):
            write_shards(draft / _SHARDS)
        (draft / "state.json").write_text(json.dumps({"schema": SCHEMA, **state}), encoding="utf-8")
    steps = _complete(folder)
    done = steps.index(final) + 1
    # Later ones are damaged, or this run went back before them: its future is another.
    for old in (*steps[: max(0, done - _KEPT)], *steps[done:], *folder.glob(f"*{_DRAFT}")):
        shutil.rmtree(old, ignore_errors=True)


def keep_best(folder: RunFolder, step: int, reward: float, language_model: LanguageModel) -> bool:
    """Keep the weights of ``step`` in ``checkpoints/best`` if no evaluation before had as high a reward.

    A reward of NaN, where nothing was measured, is no reason to keep them.

    Returns:
        true if they were kept.
    """
    best = folder.checkpoints / "best"
    known = read_json(best / "best.json", Best) if (best / "best.json").is_file() else None
    if math.isnan(reward) or (known is not None and known["step"] < step and not reward > known["reward"]):
        return False
    with _draft_of(best) as draft:
        with _writing(best):
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
            draft.mkdir(parents=True)
            yield draft
            write_manifest(draft)
            sync_tree(draft)
            shutil.rmtree(final, ignore_errors=True)
            replace_durably(draft, final)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Find the operating system's error behind those by which libraries report a failed write."""
    with explain_full_disk(path):
        try:
            yield
        except Exception as error:
            # torch raises the first, safetensors the second, and tokenizers a bare exception.
            if not isinstance(error, RuntimeError | SafetensorError) and type(error) is not Exception:
                raise
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            raise (cause or OSError(str(error))) from error


def _complete(folder: Path) -> list[Path]:
    """List complete checkpoints by step; a draft, which a kill can leave, has another form of name."""
    return sorted(
        (path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()),
        key=lambda path: int(path.name.removeprefix("step-")),
    )
