"""Find the other processes of a run."""

from __future__ import annotations

import datetime
import functools

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from envgym.errors import UserError
from envgym.runs.processes import ProcessPlace, process_place
from envgym_trainers.distributed.team import ALONE, Team
from envgym_trainers.models.placement import Device, resolve_device

__all__ = ["join"]

_MEETING = datetime.timedelta(minutes=10)
"""Time in which all processes must have come, and for one collective call."""
_NO_LIMIT = datetime.timedelta(days=3650)


def join(device: Device) -> Team:
    """Return the processes of this run, which the environment names; once all have come.

    Args:
        device: the recipe's; each process of a machine takes a GPU of its own.

    Raises:
        UserError: the environment contradicts itself, the machine has fewer GPUs than processes, or the processes
            do not find each other.
    """
    place = process_place()
    return ALONE if place.size == 1 else _meet(place, resolve_device(device).type)


@functools.cache
def _meet(place: ProcessPlace, kind: str) -> Team:
    if kind == "cuda":
        if place.local_size > (count := torch.cuda.device_count()):
            raise UserError(
                f"{place.local_size} processes on a machine with {count} GPUs: each needs one of its own; start "
                "fewer, or set model.device = 'cpu'"
            )
        torch.cuda.set_device(place.local_rank)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo", timeout=_MEETING)
        talk = dist.new_group(backend="gloo", timeout=_NO_LIMIT)
        lifelines = dist.new_group(backend="gloo", timeout=_NO_LIMIT)
        return Team(place, init_device_mesh(kind, (place.size,)), talk, lifelines)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"process {place.rank} of {place.size} did not find the others ({error!s:.300}): start all of them, "
            "and see that MASTER_ADDR and MASTER_PORT can be reached"
        ) from error
