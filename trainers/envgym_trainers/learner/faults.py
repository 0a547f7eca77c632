"""What is not finite: found before it reaches an update, and named."""

from __future__ import annotations

from collections.abc import Sequence

from envgym.errors import EnvgymError
from envgym_trainers.batch import Sample

__all__ = ["NotFinite", "broken_column", "some"]

_COLUMNS = {
    "turn_rewards": "rewards of turns",
    "values": "values of the critic",
    "old_logprobs": "old log-probs",
    "reference_logprobs": "reference log-probs",
}


class NotFinite(EnvgymError):
    """Rewards, losses or gradients are infinite or not a number again and again, or a weight has become so."""


def broken_column(samples: Sequence[Sample]) -> str:
    """Return the name of a column that is not finite at a sampled token of ``samples``; ``""`` if all are.

    The engine's log-probs are no such column: NaN is what it did not report, and the rest is compared with the
    trainer's.
    """
    for sample in samples:
        for field, name in _COLUMNS.items():
            column = getattr(sample, field)
            if column is not None and not bool(column[sample.mask].isfinite().all()):
                return name
    return ""


def some(names: Sequence[str]) -> str:
    """Return the first three of ``names``, and the number of the others."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
