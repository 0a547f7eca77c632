"""Tensors of a checkpoint that several processes write, each its shards, and any number of processes read.

The files are safetensors, written and read by torch's distributed checkpoints; the outline of the state beside
them has tensors without data.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed import tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh

__all__ = ["fill_outline", "outline", "write_shards"]


def write_shards(folder: Path, state: dict[str, Any]) -> None:
    """Write the tensors of nested containers; called in all processes, with a folder that all of them see."""
    tensors = {name: value.detach() for name, value in _leaves(state)}
    save(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def outline(state: Any) -> Any:
    """Return nested containers with tensors that have shapes and types only."""
    return _mapped(state, lambda value: torch.empty(value.shape, dtype=value.dtype, device="meta"))


def fill_outline(folder: Path, state: Any, mesh: DeviceMesh | None) -> Any:
    """Return the state that ``outline`` outlined, read from the files of ``write_shards``.

    Args:
        folder: that of the files.
        state: the outline.
        mesh: shards every tensor but scalars over these devices, whose processes all call this; without one,
            tensors come whole and on the CPU.
    """

    def room(value: Tensor) -> Tensor:
        if mesh is None or not value.ndim:
            return torch.empty(value.shape, dtype=value.dtype)
        shard = [tensor.Shard(0)]
        return tensor.empty(value.shape, dtype=value.dtype, device_mesh=mesh, placements=shard)

    filled = _mapped(state, room)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        load(
            dict(_leaves(filled)),
            storage_reader=HuggingFaceStorageReader(str(folder)),
            no_dist=mesh is None,
        )
    return filled


def _leaves(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested containers by path."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, dict | list):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from _leaves(value, f"{name}/{key}")


def _mapped(state: Any, change: Any) -> Any:
    """Return nested containers with every tensor changed."""
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, dict):
        return {key: _mapped(value, change) for key, value in state.items()}
    return [_mapped(value, change) for value in state] if isinstance(state, list) else state
