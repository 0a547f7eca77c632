"""What every engine refuses in the same words."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from envgym.errors import UserError

__all__ = ["check_room", "check_shapes"]


def check_room(held: int, new: int, max_tokens: int, capacity: int) -> None:
    """Check that a conversation of ``held`` tokens has room for ``new`` ones and a completion.

    Raises:
        ValueError: it has not, or nothing is asked for.
    """
    if max_tokens < 1 or held + new < 1 or held + new + max_tokens > capacity:
        raise ValueError(
            f"{held} + {new} ids and {max_tokens} to sample: at least one of each is needed, and at most "
            f"{capacity} in all"
        )


def check_shapes(new: Mapping[str, torch.Size], own: Mapping[str, torch.Size]) -> None:
    """Check that new weights are of an engine's model, by the shape of each.

    Raises:
        UserError: a name is missing or unknown, or a shape differs.
    """
    if odd := sorted(new.keys() ^ own.keys()) or [name for name in own if new[name] != own[name]]:
        raise UserError(
            f"the new weights are not those of the engine's model: {len(odd)} tensors differ in name or shape, "
            f"e.g. {odd[0]!r}; make the engine with a model of the same architecture, without adapters"
        )
