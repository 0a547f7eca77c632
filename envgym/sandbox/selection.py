"""Find sandbox backends by name, and the best one that works on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envgym.errors import RecipeError, UserError
from envgym.plugins.registry import Registry
from envgym.sandbox.interface import Backend

__all__ = ["AUTO", "sandboxes", "select_backend"]

AUTO = "auto"
"""Selects the isolating backend with the highest rank that works on this machine."""

sandboxes: Registry[Backend] = Registry("sandbox", "envgym.sandboxes", "envgym.sandbox.interface:Backend")
"""Every sandbox backend that is installed or registered."""


def select_backend(name: str = AUTO, settings: Mapping[str, Any] | None = None) -> Backend:
    """Make the backend called ``name``.

    Args:
        name: a backend's name, ``"package.module:Class"``, or ``"auto"``, which asks every isolating backend in
            the order of their ranks, and never takes one that does not isolate.
        settings: fields of the backend's ``Config``; ``"auto"`` takes none.

    Raises:
        UserError: there is no such backend, it has no such setting, or it does not work here; the message says
            why not and what to do.
    """
    if name != AUTO:
        if reason := sandboxes.load(name).unavailable():
            raise UserError(f"no sandbox for untrusted code works on this machine; {name}: {reason}")
        return sandboxes.make(name, settings)
    if settings:
        allowed = ", ".join(sandboxes.plugins())
        raise RecipeError(f"sandbox 'auto' has no settings (got {', '.join(settings)}); name one of {allowed}")
    reasons = []
    found: list[tuple[int, str]] = []
    for candidate in sandboxes.plugins():
        try:
            kind = sandboxes.load(candidate)
        except UserError as error:
            reasons.append(f"{candidate}: {error}")
            continue
        if kind.isolated:
            found.append((-kind.rank, candidate))
    for _, candidate in sorted(found):
        reason = sandboxes.load(candidate).unavailable()
        if reason is None:
            return sandboxes.make(candidate)
        reasons.append(f"{candidate}: {reason}")
    raise UserError("no sandbox for untrusted code works on this machine; " + "; ".join(reasons))
