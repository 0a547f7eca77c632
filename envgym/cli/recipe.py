"""``envgym recipe``: the keys of a recipe, read from the models that validate it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from envgym.cli.options import JsonFlag
from envgym.errors import UserError
from envgym.plugins.kinds import Kind

if TYPE_CHECKING:
    from envgym.runs.recipe_keys import Table

__all__ = ["PARTS", "add_to", "part_tables", "stage_tables"]

PARTS = {
    "engine": Kind.ENGINES,
    "objective": Kind.OBJECTIVES,
    "mix": Kind.ENVIRONMENTS,
    "sandbox": Kind.SANDBOXES,
    "cluster": Kind.CLUSTERS,
}
"""Parts of a recipe that name a plugin, and the kind of each."""


def add_to(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("recipe")(recipe_command)


def recipe_command(
    stage: Annotated[str, typer.Argument(help="a stage: rl, sft, another's name, or package.module:Class")] = "rl",
    objective: Annotated[str, typer.Option(help="add the settings of this objective, e.g. dapo")] = "",
    env: Annotated[str, typer.Option(help="add the settings of this environment, e.g. math_problems")] = "",
    sandbox: Annotated[str, typer.Option(help="add the settings of this sandbox backend, e.g. docker")] = "",
    engine: Annotated[str, typer.Option(help="add the settings of this engine, e.g. in_process")] = "",
    cluster: Annotated[str, typer.Option(help="add the settings of this cluster, e.g. ray")] = "",
    toml: Annotated[bool, typer.Option("--toml", help="print a commented recipe to start from")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print every key of a recipe with its type, bounds, default and meaning.

    A recipe is a TOML file. Its stage decides which keys it has; the plugins that it names add their settings:
    envgym recipe rl --objective dapo --env math_problems. With --toml the same becomes a recipe that runs as it
    stands: save it, uncomment the keys to change, and pass it to envgym train.
    """
    from envgym.runs.recipe_text import as_starter, as_text

    named = {"engine": engine, "objective": objective, "mix": env, "sandbox": sandbox, "cluster": cluster}
    chosen = {part: name for part, name in named.items() if name}
    tables = stage_tables(stage, chosen)
    if as_json:
        print(json.dumps([asdict(table) for table in tables], indent=2))
    elif toml:
        live = {"stage": stage} | {f"{part}.{'env' if part == 'mix' else 'name'}": n for part, n in chosen.items()}
        print(as_starter(tables, "envgym train my.toml", live), end="")
    else:
        print(as_text(tables))


def stage_tables(stage: str, chosen: dict[str, str] | None = None) -> list[Table]:
    """Return the tables of a stage's recipe.

    Args:
        stage: name of the stage.
        chosen: plugins whose settings are listed as well, by the part of the recipe that names them.

    Raises:
        UserError: there is no such stage or plugin, it cannot be loaded, or the stage has no such part.
    """
    from envgym.runs.recipe_keys import read_tables
    from envgym.runs.stage import stages

    kind = stages.load(stage)
    tables = list(read_tables(kind.Config, about=(kind.__doc__ or "").strip().split("\n\n")[0]))
    for part, name in (chosen or {}).items():
        tables = list(_with_settings(tables, part, name, stage))
    return tables


def part_tables(part: str, name: str, path: str) -> list[Table]:
    """Return the tables of a plugin's settings, the first of them under ``path``.

    Raises:
        UserError: there is no such plugin, or it cannot be loaded.
    """
    from envgym.runs.recipe_keys import read_tables

    registry = PARTS[part].load_registry()
    return list(read_tables(registry.load(name).Config, path, about=f"Settings of the {registry.kind} {name}."))


def _with_settings(tables: Sequence[Table], part: str, name: str, stage: str) -> Iterator[Table]:
    """Insert a plugin's settings where its part of the recipe takes them.

    They stand in ``settings`` where the part has such a key, and beside the name elsewhere: in a table of its own,
    or in a free one of the top.
    """
    from envgym.runs.recipe_keys import Key

    top, *rest = tables
    if any(key.name == part for key in top.keys):
        first, *inner = part_tables(part, name, part)
        about = f"{part}'s name, or package.module:Class"
        called = Key(name="name", kind="string", bounds="", default=name, required=False, description=about)
        yield replace(top, keys=tuple(key for key in top.keys if key.name != part))
        yield replace(first, keys=(called, *first.keys))
        yield from [*inner, *rest]
        return
    if not any(table.path == part for table in rest):
        raise UserError(f"a recipe of stage {stage!r} has no {part}: leave that option out")
    for table in tables:
        kept = tuple(key for key in table.keys if key.name != "settings")
        if table.path != part:
            yield table
        elif len(kept) < len(table.keys):
            yield replace(table, keys=kept)
            yield from part_tables(part, name, f"{part}.settings")
        else:
            first, *inner = part_tables(part, name, part)
            yield replace(table, keys=(*kept, *first.keys))
            yield from inner
