"""One model over several processes: FSDP2, each layer in equal shards, gathered while it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from envgym_trainers.distributed.team import Team

__all__ = ["fill", "local", "publish", "shard", "shard_like"]


def shard(root: nn.Module, team: Team, compute: torch.dtype) -> None:
    """Shard the float32 weights of ``root`` over the team, in place; gradients are sums over the processes.

    Each decoder layer is gathered for its forward and its backward pass and freed after each. A loss has to be
    divided by the totals of all processes, as nothing is averaged here.

    Args:
        root: its own ``forward`` is the only way to run what is in it.
        team: of more than one process.
        compute: data type of the passes; gradients are added in float32.
    """
    narrow = compute if compute != torch.float32 else None
    options: dict[str, Any] = {
        "mesh": team.mesh,
        "mp_policy": MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32),
        "reshard_after_forward": True,
    }
    layers = [module for module in root.modules() if isinstance(module, GradientCheckpointingLayer)]
    for module in (*layers, root):
        fully_shard(module, **options)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other


@torch.no_grad()
def fill(sharded: nn.Module, source: nn.Module | None, team: Team) -> None:
    """Give every process its shards of the leader's weights.

    Args:
        sharded: a sharded module.
        source: in the leader, a module with parameters and buffers of the same names; ``None`` elsewhere.
        team: the processes.
    """
    weights = {} if source is None else _tensors(source)
    for name, target in _tensors(sharded).items():
        whole = torch.empty(target.shape, dtype=target.dtype, device=target.device)
        if source is not None:
            whole.copy_(weights[name])
        if isinstance(target, DTensor):
            local(target).copy_(local(distribute_tensor(whole, target.device_mesh, target.placements)))
        else:
            torch.distributed.broadcast(whole, src=0)
            target.copy_(whole)


@torch.no_grad()
def publish(sharded: nn.Module, target: nn.Module | None) -> None:
    """Gather the trained weights, one parameter at a time, into the leader's whole copy.

    Args:
        sharded: a sharded module.
        target: in the leader, a module with parameters of the same names; ``None`` elsewhere.
    """
    weights = {} if target is None else dict(target.named_parameters())
    for name, parameter in sharded.named_parameters():
        if parameter.requires_grad:
            whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            if target is not None:
                weights[name].copy_(whole)


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor; all of one that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_like(value: Tensor, target: Tensor) -> Tensor:
    """Return ``value``, the same in all processes, sharded if ``target`` is, and whole if not."""
    if not isinstance(target, DTensor):
        return value.full_tensor() if isinstance(value, DTensor) else value
    if isinstance(value, DTensor):
        return value
    return distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
