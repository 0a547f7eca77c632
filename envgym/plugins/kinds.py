"""The kinds of plugins: one table, for whatever handles all of them alike."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from envgym.plugins.registry import Registry
from envgym.plugins.spec import PluginSpec

__all__ = ["Kind"]


class Kind(StrEnum):
    """A kind of plugins, by the last word of its entry-point group."""

    singular: str
    """One plugin of the kind, in words."""
    registry_path: str
    """``"module:name"`` of its registry. The core imports none of the trainer's before one is asked for."""

    ENVIRONMENTS = "environments", "environment", "envgym.env.registration:environments"
    SANDBOXES = "sandboxes", "sandbox", "envgym.sandbox.selection:sandboxes"
    POLICIES = "policies", "policy", "envgym.policies.interface:policies"
    TOOL_FORMATS = "tool_formats", "tool format", "envgym.chat.tool_formats:tool_formats"
    ENGINES = "engines", "engine", "envgym_trainers.engine.interface:engines"
    OBJECTIVES = "objectives", "objective", "envgym_trainers.objectives.base:objectives"
    CLUSTERS = "clusters", "cluster", "envgym.rollout.cluster:clusters"
    STAGES = "stages", "stage", "envgym.runs.stage:stages"

    def __new__(cls, value: str, singular: str, registry_path: str) -> Self:
        kind = str.__new__(cls, value)
        kind._value_ = value
        kind.singular = singular
        kind.registry_path = registry_path
        return kind

    @property
    def group(self) -> str:
        """The entry-point group that offers plugins of this kind."""
        return f"envgym.{self.value}"

    def load_registry(self) -> Registry[Any]:
        """Import the registry of this kind and return it.

        Raises:
            PluginError: a package that the registry's module needs is missing.
        """
        spec = PluginSpec(name=self.singular, entry_point=self.registry_path, distribution="envgym")
        registry: Registry[Any] = spec.load()
        return registry
