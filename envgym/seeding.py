"""Seeds derived from names, so that one run seed fixes every draw, in whatever order draws happen."""

from __future__ import annotations

import hashlib
import random

__all__ = ["derive_rng", "derive_seed"]


def derive_seed(*names: object) -> int:
    """Return a seed in [0, 2**63) that depends on the names alone, not on the process's hash salt."""
    digest = hashlib.blake2b(repr(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def derive_rng(*names: object) -> random.Random:
    """Return a generator seeded by ``derive_seed``."""
    return random.Random(derive_seed(*names))
