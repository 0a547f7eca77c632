"""What a recipe asks of a device, whether it fits, and what to change where it does not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from envgym.env.registration import environments
from envgym_trainers.objectives import Objective
from envgym_trainers.planning.arithmetic import USABLE_SHARE, Load, Times, checkpoint_bytes, memory, times
from envgym_trainers.planning.devices import Device
from envgym_trainers.planning.shapes import ModelShape
from envgym_trainers.recipe import ReinforcementRecipe

__all__ = ["Plan", "load_of", "plan_for"]

_CHECKPOINTS = 3
"""The last two, and the one being written."""
_CACHE_SHARE = 0.25
"""Share of the memory that the cache may take where the recipe leaves the context to the model."""
_MOST_DEVICES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The answer of ``envgym plan``."""

    load: Load
    memory: dict[str, float]
    """Bytes of each device, by what they are for."""
    usable: float
    """Bytes of a device to plan with."""
    times: Times
    disk: float
    """Bytes of the checkpoints that are kept at once."""
    sandboxes: int
    """Sandboxes in use at once, at most."""
    judge_calls: int
    """Requests to the judge at once, at most."""
    changes: dict[str, float]
    """Changes to the recipe that make it fit, each on its own, with the bytes that a device then holds."""

    @property
    def total(self) -> float:
        """Bytes that each device holds."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """True if they are no more than usable."""
        return self.total <= self.usable

    def as_json(self) -> dict[str, Any]:
        """Return everything, for programs."""
        found = asdict(self)
        return {"fits": self.fits, "total": self.total, **found, "step_seconds": self.times.step}


def load_of(
    recipe: ReinforcementRecipe,
    objective: Objective,
    shape: ModelShape,
    device: Device,
    *,
    devices: int,
    tokens: int | None,
    sampled: int | None,
) -> Load:
    """Return what a recipe asks for.

    Args:
        recipe: the recipe.
        objective: the one that it names.
        shape: the model.
        device: bounds the context where the recipe leaves it to the model.
        devices: devices that share the trainer's state.
        tokens: tokens of an episode; the whole context by default.
        sampled: those of them that the model writes; half by default.
    """
    width = 4 if recipe.model.dtype == "float32" else 2
    concurrency = recipe.sampling.concurrency
    affordable = int(device.memory * _CACHE_SHARE / (shape.cached(1) * width * math.ceil(concurrency / devices)))
    context = min(recipe.model.context or max(512, affordable), shape.positions)
    needs = objective.needs()
    length = min(tokens or context, context)
    return Load(
        episodes=recipe.groups * recipe.group_size,
        concurrency=concurrency,
        context=context,
        tokens=length,
        sampled=min(sampled or max(1, length // 2), length),
        micro_batch=min(
            max(recipe.optimizer.micro_batch_tokens, length), recipe.groups * recipe.group_size * length
        ),
        checkpointing=recipe.optimizer.gradient_checkpointing,
        width=width,
        lora_rank=recipe.model.lora_rank,
        reference="reference" in needs.auxiliary,
        critic="critic" in needs.auxiliary,
        devices=devices,
        copies=(devices > 1) + (recipe.engine.runs_model and recipe.asynchronous.max_staleness > 0),
        samples_elsewhere=not recipe.engine.runs_model,
        cache_limit=(recipe.engine.model_extra or {}).get("memory", device.memory * _CACHE_SHARE / 2**30) * 2**30,
        passes=recipe.epochs,
    )


def plan_for(recipe: ReinforcementRecipe, shape: ModelShape, load: Load, device: Device) -> Plan:
    """Plan a recipe whose ``load`` was taken from it."""
    usable = device.memory * USABLE_SHARE
    held = memory(shape, load)
    in_sandboxes = any(entry.weight > 0 and environments.load(entry.env).needs_sandbox for entry in recipe.mix)
    at_once = min(load.concurrency, load.episodes)
    changes = {}
    if sum(held.values()) > usable:
        tried = {words: sum(memory(shape, changed).values()) for words, changed in _changes(shape, load, usable)}
        changes = {words: size for words, size in tried.items() if size <= usable}
    return Plan(
        load=load,
        memory=held,
        usable=usable,
        times=times(shape, load, device),
        disk=checkpoint_bytes(shape, load) * _CHECKPOINTS,
        sandboxes=at_once if in_sandboxes else 0,
        judge_calls=at_once if recipe.judge.name else 0,
        changes=changes,
    )


def _changes(shape: ModelShape, load: Load, usable: float) -> Iterator[tuple[str, Load]]:
    """Yield changes to a recipe that save memory, in its own words."""
    if load.width == 4:
        yield 'model.dtype = "bfloat16"', replace(load, width=2)
    if load.checkpointing != "full":
        yield 'optimizer.gradient_checkpointing = "full"', replace(load, checkpointing="full")
    if load.micro_batch > load.tokens:
        yield f"optimizer.micro_batch_tokens = {load.tokens}", replace(load, micro_batch=load.tokens)
    for concurrency in _halves(load.concurrency, load.devices):
        changed = replace(load, concurrency=concurrency)
        if sum(memory(shape, changed).values()) <= usable:
            yield f"sampling.concurrency = {concurrency}", changed
            break
    lean = replace(load, width=2, checkpointing="full", micro_batch=load.tokens)
    together = (
        f'model.dtype = "bfloat16" with optimizer.gradient_checkpointing = "full" with '
        f"optimizer.micro_batch_tokens = {load.tokens}"
    )
    yield together, lean
    if not load.lora_rank:
        yield "model.lora_rank = 16", replace(load, lora_rank=16)
        yield f"model.lora_rank = 16 with {together}", replace(lean, lora_rank=16)
    devices = load.devices
    while devices < _MOST_DEVICES:
        devices *= 2
        changed = replace(load, devices=devices, copies=load.copies + (load.devices == 1))
        if sum(memory(shape, changed).values()) <= usable:
            yield f"{devices} devices", changed
            break


def _halves(number: int, least: int) -> Iterator[int]:
    while (number := number // 2) >= max(1, least):
        yield number
