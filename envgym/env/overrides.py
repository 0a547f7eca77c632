"""Methods of ``ChatEnv`` that no subclass overrides, and the hooks that are there instead."""

from __future__ import annotations

import inspect

__all__ = ["HOOKS", "refuse_overrides"]

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
"""By the name of the machinery: the hook to write instead."""


def refuse_overrides(kind: type, base: type) -> None:
    """Refuse a subclass of ``base`` that replaces its machinery: the rollout and the record rely on it.

    Raises:
        TypeError: names the attribute, and the hook to write instead.
    """
    for name, hook in HOOKS.items():
        if inspect.getattr_static(kind, name) is not vars(base)[name]:
            owner = base.__name__
            raise TypeError(f"{kind.__name__} overrides {name}, which is {owner}'s own; write {hook} instead")
