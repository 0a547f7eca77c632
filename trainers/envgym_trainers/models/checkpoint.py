"""Checkpoints, written atomically; the newest two are kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from envgym.records import SCHEMA
from envgym.runs.folder import RunFolder, read_json
from envgym_trainers.models.language_model import LanguageModel

__all__ = ["Checkpoint", "keep_best", "latest_checkpoint", "save_checkpoint"]

_KEPT = 2
_DRAFT = ".draft"


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


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint in ``folder``, or ``None``."""
    found = _complete(folder)
    return Checkpoint(folder=found[-1]) if found else None


def save_checkpoint(
    folder: Path, step: int, language_model: LanguageModel, tensors: dict[str, Any], state: dict[str, Any]
) -> None:
    """Write the checkpoint of ``step``. A kill at any instant leaves the earlier ones intact.

    Args:
        folder: folder of all checkpoints.
        step: number of steps done.
        language_model: the trained model.
        tensors: nested containers of tensors and numbers.
        state: JSON values.
    """
    final = folder / f"step-{step:06d}"
    draft = folder / (final.name + _DRAFT)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    language_model.save(draft / "model")
    torch.save(tensors, draft / "tensors.pt")
    (draft / "state.json").write_text(json.dumps({"schema": SCHEMA, **state}), encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    draft.replace(final)
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
    draft = best.with_name(best.name + _DRAFT)
    shutil.rmtree(draft, ignore_errors=True)
    language_model.save(draft)
    (draft / "best.json").write_text(json.dumps({"schema": SCHEMA, "step": step, "reward": reward}))
    shutil.rmtree(best, ignore_errors=True)
    draft.replace(best)
    return True


def _complete(folder: Path) -> list[Path]:
    """List complete checkpoints by step; a draft, which a kill can leave, has another form of name."""
    return sorted(
        (path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()),
        key=lambda path: int(path.name.removeprefix("step-")),
    )
