"""``envgym list``: the installed plugins, and the reasons why some cannot be used."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any

import typer

from envgym.cli.options import JsonFlag
from envgym.errors import UserError
from envgym.plugins.kinds import Kind
from envgym.plugins.registry import Registry
from envgym.plugins.spec import PluginSpec

__all__ = ["add_to"]


_DISTRIBUTION = re.compile(r"[\w.-]+")


def add_to(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("list")(list_command)


def list_command(
    kind: Annotated[Kind, typer.Option(help="the kind of plugin to list")] = Kind.ENVIRONMENTS,
    check: Annotated[bool, typer.Option("--check", help="load each plugin, and report those that fail")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List every installed plugin of a kind, with the problems that keep it from being used.

    Nothing is imported unless --check is given. Exit code 1: --check found a plugin that cannot be used.
    """
    # A registry of its own reads the same metadata without importing the module that defines the kind.
    plugins = Registry[Any](kind.singular, kind.group, base="").plugins()
    problems = {name: plugin.problem or _missing(plugin) for name, plugin in plugins.items()}
    if check:
        problems = {name: _fault(kind, name) or problem for name, problem in problems.items()}
    if as_json:
        rows = [_row(plugin, problems[name]) for name, plugin in plugins.items()]
        print(json.dumps(rows, indent=2))
    else:
        width = max(map(len, plugins), default=0)
        for name, plugin in plugins.items():
            print(f"{name:<{width}}  {plugin.entry_point}  ({plugin.distribution})")
            if problems[name]:
                print(f"{'':<{width}}  problem: {problems[name]}")
    if check and any(problems.values()):
        sys.exit(1)


def _row(plugin: PluginSpec, problem: str) -> dict[str, Any]:
    return {
        "id": plugin.name,
        "entry_point": plugin.entry_point,
        "distribution": plugin.distribution,
        "extras": plugin.extras,
        "problem": problem,
    }


def _missing(plugin: PluginSpec) -> str:
    """Return a message on the missing packages of the plugin's extras, or ``""``, from package metadata alone."""
    wanted = {f"extra=='{extra}'" for extra in plugin.extras}
    missing = []
    for requirement in _requirements(plugin.distribution) if wanted else ():
        text, _, marker = requirement.partition(";")
        package = _DISTRIBUTION.match(text)
        # A marker with further conditions may not apply to this machine.
        if package and "".join(marker.split()).replace('"', "'") in wanted and not _installed(package[0]):
            missing.append(package[0])
    extras = ",".join(plugin.extras)
    return f"needs {', '.join(missing)}: pip install '{plugin.distribution}[{extras}]'" if missing else ""


def _requirements(distribution: str) -> Sequence[str]:
    try:
        return metadata.requires(distribution) or ()
    except metadata.PackageNotFoundError:  # its metadata has no name
        return ()


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _fault(kind: Kind, name: str) -> str:
    """Load a plugin and say why it cannot be used, or ``""``. What it prints goes to standard error."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            kind.load_registry().load(name)
    except UserError as error:
        return str(error)
    return ""
