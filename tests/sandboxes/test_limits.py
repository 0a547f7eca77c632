"""Limits that make no sense are refused with a reason, and at once."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from envgym.errors import SandboxError
from envgym.sandbox.interface import Backend, Limits


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_is_positive(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"limit {name} must be positive"):
        Limits(**{name: value})


@pytest.mark.parametrize(
    "absurd",
    [
        {"memory_bytes": 4096},
        {"memory_bytes": 2**62},
        {"cpus": 10_000.0},
        {"disk_bytes": 1},
        {"open_files": 10**12},
        {"processes": 10**12},
    ],
    ids=str,
)
async def test_a_sandbox_of_absurd_limits_is_refused_or_works(backend: Backend, absurd: dict[str, Any]) -> None:
    """Within seconds, and in words; what can be granted is granted."""
    started = time.monotonic()
    refused = ""
    try:
        async with await backend.open(Limits(**absurd)) as sandbox:
            assert (await sandbox.run_python("print(1)")).text == "1\n"
    except SandboxError as error:
        refused = str(error)
    assert not refused or "could not start a sandbox" in refused or "for the sandbox" in refused
    assert time.monotonic() - started < 45.0
