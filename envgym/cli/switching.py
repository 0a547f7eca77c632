"""Change a plugin that a recipe names: the old one's settings go, and it is said which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from envgym.errors import UserError

if TYPE_CHECKING:
    from envgym.plugins.registry import Registry

__all__ = ["drop_leftovers"]


def drop_leftovers(values: dict[str, Any], overrides: Mapping[str, Any]) -> list[str]:
    """Remove, in place, settings of plugins that ``overrides`` replace and that the new plugins do not have.

    A key that neither plugin has is left for validation to refuse, as is one that ``overrides`` sets.

    Args:
        values: a recipe as it was read.
        overrides: values by dotted key, not yet applied.

    Returns:
        a note for each plugin that lost settings.
    """
    notes: list[str] = []
    for dotted, registry, table, name, default in _choices(values):
        new = overrides.get(dotted)
        old = table.get(name, default)
        if not isinstance(new, str) or not isinstance(old, str | None) or new == old:
            continue
        settings = table["settings"] if isinstance(table.get("settings"), dict) else table
        known = _fields(registry, new)
        gone = _fields(registry, old) - known - {name} if known else set()
        dropped = [key for key in settings if key in gone]
        for key in dropped:
            del settings[key]
        if dropped:
            notes.append(
                f"{dotted}={new} leaves out what the recipe sets for {old} and {new} does not have: "
                f"{', '.join(dropped)}"
            )
    return notes


def _choices(values: dict[str, Any]) -> Iterator[tuple[str, Registry[Any], dict[str, Any], str, str | None]]:
    """Yield the places of a recipe that name a plugin: dotted key, registry, table, key in that table, default."""
    from envgym.cli.recipe import PARTS
    from envgym.runs.stage import Stage, stages

    yield "stage", stages, values, "stage", Stage.Config().stage
    for part, kind in PARTS.items():
        found = values.get(part)
        if isinstance(found, dict):
            yield f"{part}.name", kind.load_registry(), found, "name", None
        for i, entry in enumerate(found if isinstance(found, list) else ()):
            if isinstance(entry, dict):
                yield f"{part}.{i}.env", kind.load_registry(), entry, "env", None


def _fields(registry: Registry[Any], name: str | None) -> set[str]:
    """Return the settings of a plugin; none of one that cannot be loaded, which validation refuses."""
    try:
        return set(registry.load(name).Config.model_fields) if name else set()
    except UserError:
        return set()
