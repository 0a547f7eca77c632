"""Choose a policy by what the user wrote: a name, a folder, or the address of a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envgym.errors import UnknownNameError
from envgym.policies.interface import Policy, policies

__all__ = ["open_policy"]

_BUILTIN = ("builtin:tiny", "builtin:smollm2")


def open_policy(
    name: str, settings: Mapping[str, Any] | None = None, defaults: Mapping[str, Any] | None = None
) -> Policy:
    """Make the policy that ``name`` stands for.

    Args:
        name: a registered policy, ``"package.module:Class"``, a model's or run's folder, or ``URL#MODEL``.
        settings: of the policy.
        defaults: settings that apply where the policy has them.

    Raises:
        UserError: there is no such policy, it has no such setting, or it cannot be loaded.
    """
    plugin, own = _resolve(name)
    known = policies.load(plugin).Config.model_fields
    chosen = {key: value for key, value in (defaults or {}).items() if key in known}
    return policies.make(plugin, {**chosen, **own, **(settings or {})})


def _resolve(name: str) -> tuple[str, dict[str, Any]]:
    """Name the plugin, with the settings that the name itself holds."""
    if name.startswith(("http://", "https://")):
        url, _, model = name.partition("#")
        return "http", {"url": url, "model": model}
    if name in policies.plugins():
        return name, {}
    if name in _BUILTIN or _exists(name):
        return "model", {"path": name}
    if ":" in name:
        return name, {}
    hint = (
        "a model's or run's folder, a .gguf file, package.module:Class, or a server as http://HOST:PORT/v1#MODEL"
    )
    raise UnknownNameError("policy", name, (*policies.plugins(), *_BUILTIN), hint)


def _exists(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # not even the name of a file
        return False
