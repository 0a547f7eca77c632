"""Register and make environments by id; the same ids work with ``gymnasium.make``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from envgym.errors import UserError
from envgym.plugins.registry import Registry

if TYPE_CHECKING:
    from envgym.env.chat_env import ChatEnv

__all__ = ["environments", "list_envs", "make", "make_for_gymnasium", "register", "register_in_gymnasium"]

_NAMESPACE = "envgym/"
_ID = re.compile(r"[\w.-]+-v\d+")

environments: Registry[ChatEnv] = Registry("environment", "envgym.environments", "envgym.env.chat_env:ChatEnv")
"""Every environment that is installed or registered."""


def register(name: str, entry_point: str) -> None:
    """Register an environment at run time, e.g. ``register("riddles-v1", "my_package.riddles:Riddles")``.

    Raises:
        UserError: the name carries no version, is taken, or the entry point is malformed.
    """
    name = name.removeprefix(_NAMESPACE)
    if not _ID.fullmatch(name):
        raise UserError(
            f"environment id {name!r} must be letters, digits, '_', '.' or '-' and end in a version, "
            "e.g. 'riddles-v1'"
        )
    environments.register(name, entry_point)
    register_in_gymnasium()


def make(name: str, /, **settings: Any) -> ChatEnv:
    """Make an environment by id, e.g. ``make("math_problems-v1", split="held_out", max_turns=4)``.

    Raises:
        UserError: no such environment, split or setting.
    """
    return environments.load(name)(**settings)


def list_envs() -> list[str]:
    """Return the ids of every environment that is installed or registered; nothing is imported."""
    return list(environments.plugins())


def make_for_gymnasium(*, environment: str, **settings: Any) -> ChatEnv:
    """Make the environment of one Gymnasium id; ``register_in_gymnasium`` binds ``environment``."""
    return make(environment, **settings)


def register_in_gymnasium() -> None:
    """Register every environment with Gymnasium, whose own plugin entry points ended with version 1.0.

    An id that Gymnasium would refuse is left out; ``make`` still finds it.
    """
    import gymnasium

    for plugin in environments.plugins():
        name = _NAMESPACE + plugin
        if _ID.fullmatch(plugin) and name not in gymnasium.registry:
            gymnasium.register(
                id=name,
                entry_point=f"{__name__}:{make_for_gymnasium.__name__}",
                disable_env_checker=True,
                kwargs={"environment": plugin},
            )
