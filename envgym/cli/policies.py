"""Choose a policy by what the user wrote: a name, a folder, or the address of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from envgym.errors import UnknownNameError
from envgym.http_policy import HttpPolicy
from envgym.policy import EmptyPolicy, GoldPolicy, Policy, RandomPolicy
from envgym.registry import policies

__all__ = ["PolicyName", "open_policy"]

PolicyName = Annotated[
    str,
    typer.Option(
        metavar="gold|random|empty|FOLDER|URL",
        help="who acts: the scripted expert, random actions, silence, a model's or run's folder "
        "(or builtin:tiny, builtin:smollm2), or an OpenAI-compatible server as URL#MODEL",
    ),
]

_SCRIPTED: dict[str, type[Policy]] = {"gold": GoldPolicy, "random": RandomPolicy, "empty": EmptyPolicy}
_BUILTIN = ("builtin:tiny", "builtin:smollm2")


def open_policy(
    name: str,
    *,
    temperature: float = 1.0,
    max_tokens: int = 96,
    context: int = 512,
    concurrency: int = 64,
) -> Policy:
    """The policy that ``name`` stands for.

    Raises:
        UserError: it cannot be loaded.
    """
    if name in _SCRIPTED:
        return _SCRIPTED[name]()
    if name.startswith(("http://", "https://")):
        url, _, model = name.partition("#")
        return HttpPolicy(url, model=model, temperature=temperature, max_tokens=max_tokens)
    if name not in _BUILTIN and not _exists(name):
        hint = "a model's or run's folder, a .gguf file, or the URL of a server as http://HOST:PORT/v1#MODEL"
        raise UnknownNameError("policy", name, (*_SCRIPTED, *_BUILTIN), hint)
    policy: Policy = policies.load("model")(
        name, temperature=temperature, max_tokens=max_tokens, context=context, concurrency=concurrency
    )
    return policy


def _exists(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # not even the name of a file
        return False
