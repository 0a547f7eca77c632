"""A gym for agentic post-training. Importing it registers every environment with Gymnasium as ``envgym/<id>``.

The names below serve authors of environments and policies. Each is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from envgym.env.registration import list_envs, make, register, register_in_gymnasium

if TYPE_CHECKING:
    from envgym.env.chat_env import ChatEnv, Reply
    from envgym.env.rubric import Reward, Rubric
    from envgym.env.services import Services
    from envgym.env.tools import ToolInputError, tool
    from envgym.policies.interface import Completion, Policy, PolicySession
    from envgym.records import (
        Message,
        Observation,
        Outcome,
        Score,
        Split,
        Task,
        ToolCall,
        ToolSpec,
        Trajectory,
        Turn,
    )
    from envgym.rollout.collector import Collector, Group
    from envgym.rollout.mix import MixEntry
    from envgym.tasks.procedural import ProceduralTasks

__all__ = [
    "ChatEnv",
    "Collector",
    "Completion",
    "Group",
    "Message",
    "MixEntry",
    "Observation",
    "Outcome",
    "Policy",
    "PolicySession",
    "ProceduralTasks",
    "Reply",
    "Reward",
    "Rubric",
    "Score",
    "Services",
    "Split",
    "Task",
    "ToolCall",
    "ToolInputError",
    "ToolSpec",
    "Trajectory",
    "Turn",
    "list_envs",
    "make",
    "register",
    "tool",
]

_MODULES = {
    "ChatEnv": "envgym.env.chat_env",
    "Collector": "envgym.rollout.collector",
    "Completion": "envgym.policies.interface",
    "Group": "envgym.rollout.collector",
    "MixEntry": "envgym.rollout.mix",
    "Policy": "envgym.policies.interface",
    "PolicySession": "envgym.policies.interface",
    "ProceduralTasks": "envgym.tasks.procedural",
    "Reply": "envgym.env.chat_env",
    "Reward": "envgym.env.rubric",
    "Rubric": "envgym.env.rubric",
    "Services": "envgym.env.services",
    "ToolInputError": "envgym.env.tools",
    "tool": "envgym.env.tools",
}
"""Modules of the names that are imported on first use; the others are records."""

register_in_gymnasium()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES.get(name, "envgym.records")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
