"""The location of a plugin, read from package metadata, and the import of its class."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from envgym.errors import PluginError, UnknownNameError, UserError
from envgym.optional_packages import install_command

__all__ = ["PluginSpec", "installed_plugins"]

_VALUE = re.compile(r"(?P<path>\w+(\.\w+)*:\w+)\s*(\[(?P<extras>[^\[\]]*)\])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSpec:
    """Location of a plugin's class; nothing is imported until ``load``."""

    name: str
    entry_point: str
    """``"package.module:Class"``."""
    distribution: str
    """Distribution that offers it, or ``"registered at run time"``."""
    extras: tuple[str, ...] = ()
    """Extras of the distribution that the plugin needs, from the entry point: ``module:Class [extra]``."""
    problem: str = ""
    """Reason why it cannot be loaded, known without importing it: a doubled name, a malformed entry point."""

    def load(self) -> Any:
        """Import the module and return the class.

        Raises:
            PluginError: ``problem`` is set, the module raises, or a package that it needs is missing.
            UserError: the module or the class does not exist.
        """
        if self.problem:
            raise PluginError(self.problem)
        module_name, _, attribute = self.entry_point.partition(":")
        try:
            module = importlib.import_module(module_name)
            if hasattr(module, attribute):  # inside the try: a package may import on first use of a name
                return getattr(module, attribute)
        except ModuleNotFoundError as error:
            missing = error.name or str(error)
            raise PluginError(
                f"{self._where} needs the module {missing!r}, which was not found; {self._hint(missing)}"
            ) from error
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{self._where} cannot be imported: it raised {type(error).__name__}: {error}"
            ) from error
        own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module_name]
        raise UnknownNameError(f"name in {module_name}:", attribute, own)

    @property
    def _where(self) -> str:
        given = self.name == self.entry_point
        return repr(self.name) if given else f"{self.name!r} ({self.entry_point} of {self.distribution})"

    def _hint(self, missing: str) -> str:
        if f"{self.entry_point.partition(':')[0]}.".startswith(f"{missing}."):
            return "check the spelling, and that its package is installed or its folder on PYTHONPATH"
        if self.extras:
            return f"install its extra: pip install '{self.distribution}[{','.join(self.extras)}]'"
        return f"install it: {install_command(missing)}"


@functools.cache
def installed_plugins(group: str) -> tuple[PluginSpec, ...]:
    """Return every plugin that installed distributions offer in an entry-point group; nothing is imported.

    Names may repeat. The result is kept for the life of the process.
    """

    def read() -> Iterator[PluginSpec]:
        seen: set[tuple[str, str]] = set()
        for point in metadata.entry_points(group=group):
            # An editable install can list the same metadata twice; the same target is not a conflict.
            if (point.name, point.value) in seen:
                continue
            seen.add((point.name, point.value))
            yield _spec(point)

    return tuple(read())


def _spec(point: metadata.EntryPoint) -> PluginSpec:
    # The entry point's own properties raise where its value is malformed, and would end every import of envgym.
    distribution = (point.dist and point.dist.name) or "an unnamed distribution"
    match = _VALUE.fullmatch(point.value)
    if match is None:
        problem = (
            f"{point.name!r} of {distribution} reads {point.value!r:.200}; an entry point must read "
            "'package.module:Class' or 'package.module:Class [extra]'"
        )
        return PluginSpec(name=point.name, entry_point=point.value, distribution=distribution, problem=problem)
    extras = tuple(re.findall(r"[\w.-]+", match["extras"] or ""))
    return PluginSpec(name=point.name, entry_point=match["path"], distribution=distribution, extras=extras)
