"""Memory and time of a training step, from counts alone. Everything is an estimate but the sizes of weights.

Master weights and moments: Rajbhandari et al., ZeRO, arXiv 1910.02054, section 3. Activations: Korthikanti et al.,
arXiv 2205.05198, section 4, with the widths counted instead of assumed. Operations of a parameter and token, 2
forward and 4 backward: Kaplan et al., arXiv 2001.08361, section 2.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from envgym_trainers.planning.devices import Device
from envgym_trainers.planning.shapes import ModelShape

__all__ = ["DECODING_SHARE", "GEMM_SHARE", "USABLE_SHARE", "Load", "Times", "checkpoint_bytes", "memory", "times"]

USABLE_SHARE = 0.9
"""Share of a device's memory to plan with: the rest goes to its context, to workspaces and to fragments."""
DECODING_SHARE = 0.5
"""Share of the bandwidth that decoding is assumed to reach."""
GEMM_SHARE = 0.4
"""Share of the operations a second that prefill and training are assumed to reach."""
_HEAD_CHUNK = 512
"""Rows of logits at once (``learner.logprobs``)."""
_HEAD_KEPT = 256 * 2**20
"""Bytes of probabilities kept for the backward pass (``learner.scores``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a recipe asks of its devices."""

    episodes: int
    """Episodes of a step."""
    concurrency: int
    """Episodes in flight at once."""
    context: int
    """Tokens that the cache keeps room for in a conversation."""
    tokens: int
    """Tokens of an episode, prompts and tool results included."""
    sampled: int
    """Tokens of an episode that the model writes."""
    micro_batch: int
    """Tokens of a forward pass in training."""
    checkpointing: str
    """``off``, ``selective`` or ``full``; see ``models.recompute``."""
    width: int
    """Bytes of an element of the weights: 4 or 2."""
    lora_rank: int = 0
    reference: bool = False
    """A frozen copy of the weights stands beside the policy."""
    critic: bool = False
    """A value model of the policy's size learns beside it."""
    devices: int = 1
    """Devices that share the trainer's state."""
    copies: int = 0
    """Whole copies of the weights on the first device, beside the trained ones: to sample from, or to hand out."""
    samples_elsewhere: bool = False
    """The engine has devices of its own, as many as the trainer."""
    cache_limit: float = math.inf
    """Bytes that keys and values may take; what does not fit is run again."""
    passes: int = 1
    """Passes over the step's samples with gradient."""

    @property
    def samplers(self) -> int:
        """Devices that sample: an engine in the first process has that process's alone."""
        return self.devices if self.samples_elsewhere else 1


def memory(shape: ModelShape, load: Load) -> dict[str, float]:
    """Return the bytes that the fullest device holds at the height of a step, by what they are for."""
    n, width = load.devices, load.width
    trained = load.lora_rank * shape.adapted if load.lora_rank else shape.parameters
    models = 1 + load.critic
    # Master copies stand beside weights of 16 bits; those in float32 are their own. Adapters are made in float32.
    masters = 4 * trained if width < 4 and not load.lora_rank else 0
    whole = shape.largest_layer * width * 2 if n > 1 else 0  # one runs while the next is gathered
    cached = math.ceil(load.concurrency / load.samplers) * shape.cached(load.context) * width
    # An adapter run has its reference in the frozen weights.
    frozen = width * shape.parameters if load.reference and not load.lora_rank else 0
    parts = {
        "weights": models * width * shape.parameters / n + (4 * trained / n if load.lora_rank else 0),
        "gradients": models * 4 * trained / n,
        "optimizer": models * 8 * trained / n,
        "masters": models * masters / n,
        "reference": frozen / n,
        "gathered layers": whole,
        "activations": models * _activations(shape, load),
        "logits": min(load.micro_batch, _HEAD_CHUNK) * shape.vocabulary * 4 * 2
        + min(_HEAD_KEPT, load.micro_batch * shape.vocabulary * 4),
        "whole copies": load.copies * width * shape.parameters,
        "keys and values": 0 if load.samples_elsewhere else min(cached, load.cache_limit),
    }
    return {name: float(size) for name, size in parts.items() if size}


def _activations(shape: ModelShape, load: Load) -> float:
    """Return the bytes that the layers keep for the backward pass of a micro-batch, and need to run one."""
    # Inputs of norms, of products and of the activation function; queries, keys, values and their result.
    everything = 6 * shape.hidden + 2 * shape.queries + 2 * shape.keys + 4 * shape.inner
    kept = {
        "off": everything,
        "selective": 2 * (shape.hidden + shape.queries + shape.keys + shape.inner),
        "full": shape.hidden,
    }[load.checkpointing]
    again = 0 if load.checkpointing == "off" else everything
    return load.micro_batch * load.width * (shape.layers * kept + again)


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds of a step, and rates, as assumed for real runs; floors are what no program can beat."""

    decoding: float
    decoding_floor: float
    prefill: float
    learning: float
    sampled_rate: float
    """Sampled tokens a second, over all devices."""
    needed_rate: float
    """Sampled tokens a second at which sampling takes as long as learning: more is of no use to a run that does
    both at once."""

    @property
    def step(self) -> float:
        """Seconds of a step that samples first and learns then."""
        return self.decoding + self.prefill + self.learning


def times(shape: ModelShape, load: Load, device: Device) -> Times:
    """Return the times of a step, spread evenly over the devices that do the work."""
    n, samplers = load.devices, load.samplers
    flops = device.flops_32bit if load.width == 4 else device.flops_16bit
    rows = min(load.concurrency, load.episodes) / samplers
    # A decoding step reads the weights once, and what each conversation has in the cache, half full on average.
    read = load.width * (shape.active + rows * shape.cached(load.tokens // 2))
    decode = max(read / device.bandwidth, 2 * shape.active * rows / flops)
    decode_real = max(read / device.bandwidth / DECODING_SHARE, 2 * shape.active * rows / flops / GEMM_SHARE)
    steps = load.episodes * load.sampled / (rows * samplers)
    attention = 2 * shape.queries * shape.layers * load.tokens
    forward = 2 * shape.active + attention
    work = load.episodes * load.tokens * forward
    prefill = load.episodes * (load.tokens - load.sampled) * forward / (samplers * flops * GEMM_SHARE)
    again = {"off": 0.0, "selective": 0.1, "full": 1.0}[load.checkpointing]
    # Weights that are frozen need no gradient of their own: half of the backward pass.
    backward = 1.0 if load.lora_rank else 2.0
    passes = load.passes * (1 + again + backward) + load.reference + load.critic
    learning = work * passes / (n * flops * GEMM_SHARE)
    decoding = steps * decode_real
    sampled = load.episodes * load.sampled
    return Times(
        decoding=decoding,
        decoding_floor=steps * decode,
        prefill=prefill,
        learning=learning,
        sampled_rate=sampled / (decoding + prefill),
        needed_rate=sampled / learning,
    )


def checkpoint_bytes(shape: ModelShape, load: Load) -> float:
    """Return the bytes of one checkpoint: weights, masters and moments."""
    trained = load.lora_rank * shape.adapted if load.lora_rank else shape.parameters
    masters = 4 * trained if load.width < 4 and not load.lora_rank else 0
    weights = 4 * trained if load.lora_rank else load.width * shape.parameters
    return float((1 + load.critic) * (weights + masters + 8 * trained))
