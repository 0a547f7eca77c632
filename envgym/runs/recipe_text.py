"""Write the keys of a recipe as text, as Markdown sections, or as a recipe to start from."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from typing import Any

from envgym.runs.recipe_keys import Key, Table

__all__ = ["as_markdown", "as_starter", "as_text", "toml_value"]

_WIDTH = 100


def as_text(tables: Iterable[Table]) -> str:
    """Return the tables as plain text: each key with its default, type and bounds, its description below."""
    lines: list[str] = []
    for table in tables:
        lines += ["", _header(table) + ("  (optional)" if table.optional else ""), *_wrapped(table.about, "  ")]
        for key in table.keys:
            lines.append(f"  {key.name} = {_shown(key)}    ({_kind(key)})")
            lines += _wrapped(key.description, "      ")
    return "\n".join(lines).strip("\n")


def as_markdown(tables: Iterable[Table], level: int = 3) -> str:
    """Return one section per table, headed at ``level``, with its keys in a Markdown table."""
    parts = []
    for table in tables:
        parts.append(f"{'#' * level} `{_header(table)}`\n" if table.path else f"{'#' * level} Top of the recipe\n")
        parts.append(table.about + (" Left out by default." if table.optional else "") + "\n")
        if table.keys:
            rows = [_row(f"`{k.name}`", _kind(k), f"`{_shown(k)}`", k.description) for k in table.keys]
            parts.append("\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def as_starter(tables: Iterable[Table], command: str, live: dict[str, Any]) -> str:
    """Return a TOML recipe with every key; those that have a default are commented out.

    Args:
        tables: of the stage and of the plugins that the recipe names.
        command: runs the recipe; its first line.
        live: values by dotted key that are written out although they have a default.
    """
    lines = [
        f"# {command}",
        "# A key that is commented out keeps its default; ## describes the next key.",
    ]
    for table in tables:
        off = "# " if table.optional else ""
        if table.path:
            lines += ["", *_wrapped(table.about, "## "), off + _header(table)]
        for key in table.keys:
            dotted = f"{table.path}.{key.name}".removeprefix(".")
            lines += _wrapped(f"{key.description} ({_kind(key)})", "## ")
            value = live.get(dotted, key.default)
            if value is None:
                lines.append(f"# {key.name} {'must be set' if key.required else 'is unset'}")
            elif key.required or dotted in live:
                lines.append(f"{off}{key.name} = {toml_value(value)}")
            else:
                lines.append(f"# {key.name} = {toml_value(key.default)}")
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """Return ``value`` as one line of TOML."""
    match value:
        case dict():
            pairs = ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case list():
            return f"[{', '.join(map(toml_value, value))}]"
        case bool() | str():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return repr(value)


def _header(table: Table) -> str:
    if not table.path:
        return "top of the recipe"
    return f"[[{table.path}]]" if table.repeated else f"[{table.path}]"


def _kind(key: Key) -> str:
    return f"{key.kind}, {key.bounds}" if key.bounds else key.kind


def _shown(key: Key) -> str:
    if key.required:
        return "required"
    return "unset" if key.default is None else toml_value(key.default)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), _WIDTH, initial_indent=indent, subsequent_indent=indent)
