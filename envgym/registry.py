"""Find plugins by name without importing them.

Every kind of plugin is found the same way, through entry points: environments, sandbox backends, policies,
training objectives and training stages. Listing reads package metadata only; a plugin's module is imported when
it is made.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from envgym.errors import UnknownNameError, UserError

if TYPE_CHECKING:
    from envgym.core import ChatEnv

__all__ = [
    "Plugin",
    "Registry",
    "environments",
    "list_envs",
    "make",
    "objectives",
    "policies",
    "register",
    "register_in_gymnasium",
    "sandboxes",
    "short_name",
    "stages",
]

_VERSION = re.compile(r"(?P<base>[\w.-]+)-v(?P<version>\d+)")
_PATH = re.compile(r"\w+(\.\w+)*:\w+")
_NAMESPACE = "envgym/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """Where a plugin's class lives; nothing is imported until ``load``."""

    name: str
    entry_point: str
    """``"package.module:Class"``."""
    distribution: str
    """The distribution that offers it, or ``"registered at run time"``."""

    def load(self) -> Any:
        """Import the module and return the class.

        Raises:
            UserError: the entry point is malformed, the module or the class does not exist, or a package it
                needs is missing.
        """
        return _import_attribute(self.name, self.entry_point)


class Registry:
    """All plugins of one kind: those of installed distributions and those registered at run time.

    Args:
        kind: what they are, for messages.
        group: the entry-point group that offers them.
        base: ``"package.module:Class"`` that every one of them derives from; ``""`` where core has no such class.
    """

    def __init__(self, kind: str, group: str, base: str = "") -> None:
        self.kind = kind
        self.group = group
        self._base = base
        self._registered: dict[str, Plugin] = {}

    def register(self, name: str, entry_point: str) -> None:
        """Add a plugin at run time. Adding the same one again changes nothing.

        Raises:
            UserError: the name is taken, or ``entry_point`` is not ``"package.module:Class"``.
        """
        if not _PATH.fullmatch(entry_point):
            raise UserError(f"entry point {entry_point!r} must read 'package.module:Class'")
        plugin = Plugin(name=name, entry_point=entry_point, distribution="registered at run time")
        if self._registered.get(name) != plugin:
            _refuse_duplicate(self.kind, self.plugins().get(name), plugin)
            self._registered[name] = plugin

    def plugins(self) -> dict[str, Plugin]:
        """Every plugin by name, sorted.

        Raises:
            UserError: two distributions offer the same name; both are named.
        """
        found = dict(self._registered)
        for plugin in _installed(self.group):
            _refuse_duplicate(self.kind, found.get(plugin.name), plugin)
            found[plugin.name] = plugin
        return dict(sorted(found.items()))

    def find(self, name: str) -> Plugin:
        """Resolve a name: exact, without its version (the newest wins), or ``"package.module:Class"``.

        Raises:
            UnknownNameError: nothing answers to that name.
        """
        if ":" in name:
            return Plugin(name=name, entry_point=name, distribution="given by path")
        plugins = self.plugins()
        short = name.removeprefix(_NAMESPACE)
        if short in plugins:
            return plugins[short]
        versions = [p for p in plugins.values() if short_name(p.name) == short]
        if versions:
            return max(versions, key=lambda p: _version(p.name))
        hint = f"a package adds one through the entry-point group {self.group!r}"
        raise UnknownNameError(self.kind, name, plugins, hint)

    def load(self, name: str) -> Any:
        """Import and return the class that ``name`` stands for.

        Raises:
            UserError: see ``find`` and ``Plugin.load``; also what was found is not of this kind.
        """
        plugin = self.find(name)
        found = plugin.load()
        if self._base:
            base = _import_attribute(self._base, self._base)
            if not (isinstance(found, type) and issubclass(found, base)):
                raise UserError(f"{plugin.entry_point} is no {self.kind}: it must derive from {self._base}")
        return found


def _import_attribute(name: str, entry_point: str) -> Any:
    if not _PATH.fullmatch(entry_point):
        raise UserError(f"{entry_point!r} must read 'package.module:Class'")
    module_name, _, attribute = entry_point.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if f"{module_name}.".startswith(f"{missing}."):
            hint = "check the spelling, and that its package is installed or its folder on PYTHONPATH"
        else:
            hint = f"install it, e.g. pip install {missing.split('.')[0]}"
        raise UserError(f"{name!r} needs the module {missing!r}, which was not found; {hint}") from error
    except ImportError as error:
        raise UserError(f"{name!r} cannot be imported: {error}") from error
    if not hasattr(module, attribute):
        own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module_name]
        raise UnknownNameError(f"name in {module_name}:", attribute, own)
    return getattr(module, attribute)


def short_name(name: str) -> str:
    """An id without namespace and version, or the class of a ``"package.module:Class"``."""
    name = name.removeprefix(_NAMESPACE).rpartition(":")[2]
    match = _VERSION.fullmatch(name)
    return match["base"] if match else name


def _version(name: str) -> int:
    match = _VERSION.fullmatch(name)
    return int(match["version"]) if match else 0


def _refuse_duplicate(kind: str, first: Plugin | None, second: Plugin) -> None:
    if first is not None:
        raise UserError(
            f"{kind} {second.name!r} is offered twice: by {first.distribution} ({first.entry_point}) "
            f"and by {second.distribution} ({second.entry_point}); rename or uninstall one"
        )


@functools.cache
def _installed(group: str) -> tuple[Plugin, ...]:
    def read() -> Iterator[Plugin]:
        seen: set[tuple[str, str]] = set()
        for point in metadata.entry_points(group=group):
            # An editable install can list the same metadata twice; the same target is not a conflict.
            if (point.name, point.value) in seen:
                continue
            seen.add((point.name, point.value))
            distribution = point.dist.name if point.dist else "an unnamed distribution"
            yield Plugin(name=point.name, entry_point=point.value, distribution=distribution)

    return tuple(read())


environments = Registry("environment", "envgym.environments", "envgym.core:ChatEnv")
sandboxes = Registry("sandbox", "envgym.sandboxes", "envgym.sandbox:Backend")
objectives = Registry("objective", "envgym.objectives")
policies = Registry("policy", "envgym.policies", "envgym.policy:Policy")
stages = Registry("stage", "envgym.stages")


def register(name: str, entry_point: str) -> None:
    """Register an environment at run time, e.g. ``register("riddles-v1", "my_package.riddles:Riddles")``.

    Raises:
        UserError: the name carries no version, is taken, or the entry point is malformed.
    """
    name = name.removeprefix(_NAMESPACE)
    if not _VERSION.fullmatch(name):
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
    env: ChatEnv = environments.load(name)(**settings)
    return env


def list_envs() -> list[str]:
    """Ids of every environment that is installed or registered; nothing is imported."""
    return list(environments.plugins())


def register_in_gymnasium() -> None:
    """Register every environment with Gymnasium, whose own plugin entry points ended with version 1.0."""
    import gymnasium

    try:
        plugins = environments.plugins()
    except UserError:
        # Two distributions clash. ``import envgym`` must not fail for it; the first look-up says so.
        return
    for plugin in plugins.values():
        name = _NAMESPACE + plugin.name
        if name not in gymnasium.registry:
            gymnasium.register(id=name, entry_point=plugin.entry_point, disable_env_checker=True)
