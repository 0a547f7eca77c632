"""Data sheets of devices that models are trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DEVICES", "Device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a device can do at most, of dense matrix products."""

    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes a second."""
    flops_16bit: float
    """Operations a second in bfloat16, summed in float32."""
    flops_32bit: float
    """Operations a second in float32, as torch multiplies by default: without TF32."""
    source: str


DEVICES: Mapping[str, Device] = {
    "h200": Device(
        memory=141e9,
        bandwidth=4.8e12,
        flops_16bit=989e12,
        flops_32bit=67e12,
        source="NVIDIA H200 data sheet, SXM; without sparsity",
    ),
    "h100": Device(
        memory=80e9,
        bandwidth=3.35e12,
        flops_16bit=989e12,
        flops_32bit=67e12,
        source="NVIDIA H100 data sheet, SXM; without sparsity",
    ),
    "a100": Device(
        memory=80e9,
        bandwidth=2.039e12,
        flops_16bit=312e12,
        flops_32bit=19.5e12,
        source="NVIDIA A100 data sheet, 80GB SXM; without sparsity",
    ),
    "l40s": Device(
        memory=48e9,
        bandwidth=864e9,
        flops_16bit=362e12,
        flops_32bit=91.6e12,
        source="NVIDIA L40S data sheet; without sparsity",
    ),
    "rtx4090": Device(
        memory=24e9,
        bandwidth=1.008e12,
        flops_16bit=165.2e12,
        flops_32bit=82.6e12,
        source="NVIDIA Ada GPU architecture whitepaper, GeForce RTX 4090; sums in FP32, without sparsity",
    ),
    "laptop": Device(
        memory=16e9,
        bandwidth=76.8e9,
        flops_16bit=768e9,
        flops_32bit=768e9,
        source="by arithmetic: 8 cores x 3 GHz x 32 operations (AVX2), two channels of DDR5-4800; 16 bits are "
        "no faster without AMX",
    ),
}
"""Devices by the name that ``envgym plan --gpu`` takes."""
