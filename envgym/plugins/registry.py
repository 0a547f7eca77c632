"""Find plugins by name without importing them.

Every kind is found the same way: through an entry-point group, through ``register``, or as
``"package.module:Class"``. Listing reads package metadata only; a plugin's module is imported when it is loaded.
A plugin that is broken or offered twice never hides the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from envgym.errors import PluginError, RecipeError, UnknownNameError, UserError
from envgym.plugins.signatures import mismatch
from envgym.plugins.spec import PluginSpec, installed_plugins

if TYPE_CHECKING:
    from envgym.plugins.base import Plugin

__all__ = ["Registry", "short_name"]

P = TypeVar("P", bound="Plugin")

_VERSION = re.compile(r"(?P<base>[\w.-]+)-v(?P<version>\d+)")
_PATH = re.compile(r"\w+(\.\w+)*:\w+")
_NAMESPACE = "envgym/"


class Registry(Generic[P]):
    """All plugins of one kind: those of installed distributions and those registered at run time.

    Args:
        kind: name of the kind, for messages.
        group: the entry-point group that offers them.
        base: ``"package.module:Class"`` of the kind's abstract class, imported when the first plugin is loaded.
    """

    def __init__(self, kind: str, group: str, base: str) -> None:
        self.kind = kind
        self.group = group
        self._base = PluginSpec(name=base, entry_point=base, distribution="envgym")
        self._registered: dict[str, PluginSpec] = {}

    def register(self, name: str, entry_point: str) -> None:
        """Add a plugin at run time. Adding the same one again changes nothing.

        Raises:
            UserError: the name is taken, or ``entry_point`` is not ``"package.module:Class"``.
        """
        spec = PluginSpec(name=name, entry_point=_checked_path(entry_point), distribution="registered at run time")
        if self._registered.get(name) == spec:
            return
        if taken := self.plugins().get(name):
            raise UserError(self._clash(taken, spec))
        self._registered[name] = spec

    def plugins(self) -> dict[str, PluginSpec]:
        """Return every plugin by name, sorted. A name that is offered twice carries the ``problem``."""
        found = dict(self._registered)
        for spec in installed_plugins(self.group):
            first = found.get(spec.name)
            found[spec.name] = replace(spec, problem=self._clash(first, spec)) if first else spec
        return dict(sorted(found.items()))

    def find(self, name: str) -> PluginSpec:
        """Resolve a name: exact, without its version (the newest wins), or ``"package.module:Class"``.

        Raises:
            UnknownNameError: nothing answers to that name.
            UserError: a path that is not ``"package.module:Class"``.
        """
        if ":" in name:
            return PluginSpec(name=name, entry_point=_checked_path(name), distribution="given by path")
        plugins = self.plugins()
        short = name.removeprefix(_NAMESPACE)
        if short in plugins:
            return plugins[short]
        versions = [p for p in plugins.values() if short_name(p.name) == short]
        if versions:
            return max(versions, key=lambda p: _version(p.name))
        hint = f"a package adds one through the entry-point group {self.group!r}"
        raise UnknownNameError(self.kind, name, plugins, hint)

    def load(self, name: str) -> type[P]:
        """Import and return the class that ``name`` stands for.

        Raises:
            UserError: see ``find`` and ``PluginSpec.load``.
            PluginError: the plugin is not of this kind, or was written for another version of its contract.
        """
        spec = self.find(name)
        found = spec.load()
        base: type[P] = self._base.load()
        where = f"{spec.entry_point} ({spec.distribution})"
        if not (isinstance(found, type) and issubclass(found, base)):
            article = "an" if self.kind[0] in "aeiou" else "a"
            raise PluginError(f"{where} is not {article} {self.kind}: it must subclass {self._base.entry_point}")
        if found.contract != base.contract:
            is_older = isinstance(found.contract, int) and found.contract < base.contract
            older = "upgrade the plugin" if is_older else "upgrade envgym"
            raise PluginError(
                f"{where} is written for version {found.contract} of the {self.kind} contract, and this envgym "
                f"has version {base.contract}: {older}"
            )
        if wrong := mismatch(found, base):
            raise PluginError(f"{where} does not fit the {self.kind} contract: {wrong}; is it of another version?")
        return found

    def make(
        self, name: str, settings: Mapping[str, Any] | None = None, /, *, source: str = "", **context: Any
    ) -> P:
        """Load a plugin and make one from ``settings``.

        Args:
            name: as for ``find``.
            settings: fields of the plugin's ``Config``.
            source: origin of the settings, for messages; the plugin's name by default.
            context: further keywords of this kind's constructor.

        Raises:
            UserError: see ``load``; also an unknown or wrong setting.
        """
        kind = self.load(name)
        values = dict(settings or {})
        self.validate(name, values, source)
        if taken := context.keys() & values.keys():
            raise RecipeError(f"{self.kind} {name!r}: {', '.join(sorted(taken))} is not a setting")
        return kind(**context, **values)

    def validate(self, name: str, settings: Mapping[str, Any], source: str = "") -> None:
        """Check ``settings`` against the plugin's ``Config`` without making the plugin; see ``make``."""
        from envgym.config import validate_settings

        validate_settings(self.load(name).Config, dict(settings), source or f"{self.kind} {name!r}")

    def _clash(self, first: PluginSpec, second: PluginSpec) -> str:
        return (
            f"{self.kind} {second.name!r} is offered twice: by {first.distribution} ({first.entry_point}) "
            f"and by {second.distribution} ({second.entry_point}); rename or uninstall one"
        )


def short_name(name: str) -> str:
    """Return an id without namespace and version, or the class of a ``"package.module:Class"``."""
    name = name.removeprefix(_NAMESPACE).rpartition(":")[2]
    match = _VERSION.fullmatch(name)
    return match["base"] if match else name


def _version(name: str) -> int:
    match = _VERSION.fullmatch(name)
    return int(match["version"]) if match else 0


def _checked_path(entry_point: str) -> str:
    if not _PATH.fullmatch(entry_point):
        raise UserError(f"{entry_point!r} must read 'package.module:Class'")
    return entry_point
