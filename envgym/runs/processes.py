"""The place of this process among those of a run, as ``torchrun`` or ``envgym train --processes`` sets it.

Both say it in environment variables: RANK and WORLD_SIZE among all processes, LOCAL_RANK and LOCAL_WORLD_SIZE
among those of one machine, MASTER_ADDR and MASTER_PORT of the first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from envgym.errors import UserError

__all__ = ["ProcessPlace", "process_place"]

_COUNTS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
_REMEDY = "start the processes with torchrun or envgym train --processes N, or unset these variables"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlace:
    """One process among those of a run."""

    rank: int = 0
    """Number of the process; 0 leads the others."""
    size: int = 1
    """Number of processes."""
    local_rank: int = 0
    """Number of the process on its machine."""
    local_size: int = 1
    """Number of processes on its machine."""


def process_place(environ: Mapping[str, str] = os.environ) -> ProcessPlace:
    """Return the place of this process; without any of the variables, the only one.

    Raises:
        UserError: variables are missing, are no numbers, or contradict each other.
    """
    if not any(environ.get(name) for name in ("RANK", "WORLD_SIZE")):
        return ProcessPlace()
    several = environ.get("WORLD_SIZE") != "1"
    missing = [name for name in (*_COUNTS, *(_MEETING if several else ())) if not environ.get(name)]
    if missing:
        raise UserError(f"the environment names processes but lacks {', '.join(missing)}: {_REMEDY}")
    given = {name: environ[name] for name in _COUNTS}
    if not all(text.isdecimal() for text in given.values()):
        raise UserError(f"not numbers in the environment: {_shown(given)}; {_REMEDY}")
    rank, size, local_rank, local_size = (int(text) for text in given.values())
    if not (rank < size and local_rank < local_size <= size and local_rank <= rank):
        raise UserError(f"the environment contradicts itself: {_shown(given)}; {_REMEDY}")
    return ProcessPlace(rank=rank, size=size, local_rank=local_rank, local_size=local_size)


def _shown(given: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={text!r:.20}" for name, text in given.items())
