"""Choose a policy by what the user wrote: a name, a folder, or the address of a server."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from envgym.errors import UnknownNameError

if TYPE_CHECKING:
    from envgym.policies.interface import Policy

__all__ = ["PolicyName", "PolicySettings", "open_policy"]

PolicyName = Annotated[
    str,
    typer.Option(
        metavar="NAME|FOLDER|URL",
        help="who acts: gold (the scripted expert), random, empty (says nothing), another policy's name or "
        "package.module:Class, a model's or run's folder (or builtin:tiny, builtin:smollm2), or an "
        "OpenAI-compatible server as URL#MODEL",
    ),
]
PolicySettings = Annotated[
    list[str] | None,
    typer.Option("--policy-set", metavar="KEY=VALUE", help="a setting of the policy; may be repeated"),
]

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
    from envgym.policies.interface import policies

    plugin, own = _resolve(name, policies.plugins())
    fields = policies.load(plugin).Config.model_fields
    chosen = {key: value for key, value in (defaults or {}).items() if key in fields}
    return policies.make(plugin, {**chosen, **own, **(settings or {})})


def _resolve(name: str, known: Collection[str]) -> tuple[str, dict[str, Any]]:
    """Name the plugin, with the settings that the name itself holds."""
    if name.startswith(("http://", "https://")):
        url, _, model = name.partition("#")
        return "http", {"url": url, "model": model}
    if name in known:
        return name, {}
    if name in _BUILTIN or _exists(name):
        return "model", {"path": name}
    if ":" in name:
        return name, {}
    hint = (
        "a model's or run's folder, a .gguf file, package.module:Class, or a server as http://HOST:PORT/v1#MODEL"
    )
    raise UnknownNameError("policy", name, (*known, *_BUILTIN), hint)


def _exists(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # not even the name of a file
        return False
