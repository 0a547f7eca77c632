"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

from envgym_trainers.models import memory


def _resident() -> int:
    """Return the bytes that this process has in memory."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_holes_between_tensors_in_use_are_given_back() -> None:
    """Half of many small tensors are freed, which leaves holes that the C library keeps; then it does not."""
    tensors = [torch.ones(16_000) for _ in range(2000)]  # 64 kB each: below any threshold for a mapping of its own
    tensors = tensors[::2]
    held = _resident()
    memory.release_memory()
    assert _resident() < held - 40_000_000
    assert all(bool((t == 1).all()) for t in tensors)


def test_without_glibc_nothing_is_released(monkeypatch) -> None:
    """Another C library has no ``malloc_trim``."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    memory._malloc_trim.cache_clear()
    try:
        memory.release_memory()
        assert memory._malloc_trim() is None
    finally:
        memory._malloc_trim.cache_clear()
