"""Weights on their way to servers: the files that they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from envgym_trainers.models.language_model import LanguageModel

__all__ = ["shapes_of", "write_adapter", "write_weights"]


def write_weights(language_model: LanguageModel, file: Path) -> Path:
    """Write all weights, adapters merged, and return ``file``.

    A head that shares its matrix with the embedding is written out: a server may keep the two apart.
    """
    written: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in language_model.weights().items():
        plain = tensor.detach().to("cpu").contiguous()
        shared = plain.data_ptr() in seen
        written[name] = plain.clone() if shared else plain
        seen.add(plain.data_ptr())
    save_file(written, file)
    return file


def write_adapter(language_model: LanguageModel, folder: Path) -> Path:
    """Write the adapters of a model that has some, as PEFT does, and return ``folder``."""
    model: Any = language_model.model
    model.save_pretrained(folder)
    return folder


def shapes_of(language_model: LanguageModel) -> dict[str, torch.Size]:
    """Return the shape of every weight, adapters merged."""
    return {name: tensor.shape for name, tensor in language_model.weights().items()}
