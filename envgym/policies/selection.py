"""Make a policy from a user's choice: a name, a folder, or the address of a server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envgym.errors import RecipeError, UnknownNameError
from envgym.policies.interface import policies
from envgym.policies.scripted import Expert, Novice, Player

__all__ = ["GOLD", "hub_hint", "make_player"]

GOLD = "gold"
"""Name of the scripted expert on the command line and in recipes."""
_SCRIPTED: dict[str, type[Expert]] = {GOLD: Expert, "novice": Novice}
_BUILTIN = ("builtin:tiny", "builtin:smollm2")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/([A-Za-z0-9][\w.-]*)")


def make_player(
    name: str, settings: Mapping[str, Any] | None = None, defaults: Mapping[str, Any] | None = None
) -> Player:
    """Make the policy that ``name`` stands for, or the scripted ``gold`` or ``novice``; the caller closes it.

    Args:
        name: ``gold``, ``novice``, a registered policy, ``"package.module:Class"``, a model's or run's folder,
            ``hf:organisation/name`` or ``URL#MODEL``.
        settings: fields of the policy's ``Config``.
        defaults: settings for the fields of these names, where the policy has them.

    Raises:
        UserError: there is no such policy, it has no such setting, or it cannot be loaded.
    """
    if scripted := _SCRIPTED.get(name):
        if settings:
            raise RecipeError(f"policy {name!r} has no settings; it was given {', '.join(sorted(settings))}")
        return scripted()
    plugin, own = _resolve(name)
    known = policies.load(plugin).Config.model_fields
    chosen = {key: value for key, value in (defaults or {}).items() if key in known}
    return policies.make(plugin, {**chosen, **own, **(settings or {})})


def _resolve(name: str) -> tuple[str, dict[str, Any]]:
    """Return the plugin's name, and the settings that ``name`` itself holds."""
    if name.startswith(("http://", "https://")):
        url, _, model = name.partition("#")
        return "http", {"url": url, "model": model}
    if name in policies.plugins():
        return name, {}
    if name in _BUILTIN or name.startswith("hf:") or _exists(name):
        return "model", {"path": name}
    if ":" in name:
        return name, {}
    hint = (
        "a model's or run's folder, a .gguf file, package.module:Class, or a server as http://HOST:PORT/v1#MODEL"
    )
    known = (*_SCRIPTED, *policies.plugins(), *_BUILTIN)
    raise UnknownNameError("policy", name, known, f"{hint}{hub_hint(name)}")


def hub_hint(name: str) -> str:
    """Return advice for a name that reads like the id of a model on a hub, else ``""``."""
    found = _HUB_ID.fullmatch(name)
    if not found:
        return ""
    folder = f"models/{found[1]}"
    return (
        f". {name} reads like the id of a model on a hub: write hf:{name} to have it fetched, or fetch it first, "
        f"e.g. hf download {name} --local-dir {folder}, and then give the folder, {folder}"
    )


def _exists(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # no valid file name
        return False
