"""Check the declarations of a ``ChatEnv`` subclass: hooks instead of its machinery, and roles by name."""

from __future__ import annotations

import inspect
import re

__all__ = ["HOOKS", "check_declaration"]

HOOKS = {
    "areset": "start",
    "reset": "start",
    "astep": "respond",
    "step": "respond",
    "truncate": "score, which reads trajectory.outcome",
    "end_episode": "finish",
    "close": "finish, or aclose for what outlives an episode",
    "reserved": "start",
    "task_list": "tasks",
    "share_tasks": "share",
    "rescore": "score",
    "rescore_group": "score_group",
    "trajectory": "start, which may fill trajectory.artifacts",
    "running": "start and finish",
}
"""The hook to write instead, by the name of the method that may not be overridden."""
_ROLE = re.compile(r"[A-Za-z][\w-]*")
"""A role's name, which becomes part of metric names and of recipe keys."""


def check_declaration(kind: type, base: type) -> None:
    """Refuse a subclass of ``base`` that replaces its machinery, which rollouts and records rely on.

    Raises:
        TypeError: names the attribute, and the hook to write instead; or ``roles`` is not a tuple of names.
    """
    for name, hook in HOOKS.items():
        if inspect.getattr_static(kind, name) is not inspect.getattr_static(base, name):
            owner = base.__name__
            raise TypeError(f"{kind.__name__} overrides {name}, which is {owner}'s own; write {hook} instead")
    roles: object = getattr(kind, "roles", ())
    if not (isinstance(roles, tuple) and all(isinstance(r, str) and _ROLE.fullmatch(r) for r in roles)):
        raise TypeError(f"{kind.__name__}.roles must be a tuple of names, e.g. ('verifier',); got {roles!r:.80}")
