"""Device and type of a model's weights."""

from __future__ import annotations

from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from envgym.errors import UserError

__all__ = ["DTYPES", "Device", "Dtype", "place", "resolve_device"]

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["float32", "bfloat16"]
DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_device(name: Device) -> torch.device:
    """Return the device that a recipe names; ``auto`` is CUDA if there is one.

    Raises:
        UserError: CUDA is named and torch finds none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        reason = "torch finds no GPU" if torch.backends.cuda.is_built() else "this torch is built without CUDA"
        raise UserError(f"model.device = 'cuda', but {reason}; set it to 'auto' or 'cpu', or install a CUDA torch")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def place(model: PreTrainedModel, device: Device, dtype: Dtype) -> None:
    """Move a model's weights to a device and data type, in place.

    Raises:
        UserError: CUDA is named and torch finds none.
    """
    # transformers' own annotation of ``to`` hides its arguments.
    untyped: Any = model
    untyped.to(device=resolve_device(device), dtype=DTYPES[dtype])
