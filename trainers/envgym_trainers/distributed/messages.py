"""Messages between the processes of a run: JSON, and tensors in the form of safetensors; never pickle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch

from envgym_trainers.batch import Sample, Unit

__all__ = ["Order", "decode", "encode"]

_LENGTH = 8
_COLUMNS = [f.name for f in dataclasses.fields(Sample) if "Tensor" in str(f.type)]
_VALUES = [f.name for f in dataclasses.fields(Sample) if f.name not in _COLUMNS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one process says to another."""

    name: str
    """What is to be done, or what this is the answer to."""
    values: dict[str, Any] = field(default_factory=dict)
    """JSON values."""
    units: Sequence[Unit] = ()


def encode(message: Order) -> bytes:
    """Return the bytes of a message."""
    tensors: dict[str, torch.Tensor] = {}
    rows: list[list[dict[str, Any]]] = []
    for unit in message.units:
        rows.append([])
        for sample in unit:
            number = len(tensors)
            for name in _COLUMNS:
                if (column := getattr(sample, name)) is not None:
                    tensors[f"{number}.{name}"] = column.detach().cpu().contiguous()
            rows[-1].append({"number": number, **{name: getattr(sample, name) for name in _VALUES}})
    head = json.dumps({"name": message.name, "values": message.values, "units": rows}).encode()
    return len(head).to_bytes(_LENGTH, "big") + head + safetensors.torch.save(tensors)


def decode(data: bytes) -> Order:
    """Return the message that ``encode`` made bytes of."""
    start = _LENGTH + int.from_bytes(data[:_LENGTH], "big")
    head = json.loads(data[_LENGTH:start])
    tensors = safetensors.torch.load(data[start:])
    units = [tuple(_sample(row, tensors) for row in unit) for unit in head["units"]]
    return Order(name=head["name"], values=head["values"], units=units)


def _sample(row: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Sample:
    number = row.pop("number")
    columns: dict[str, Any] = {
        name: tensors[f"{number}.{name}"] for name in _COLUMNS if f"{number}.{name}" in tensors
    }
    return Sample(**row, **columns)
