"""Commands that packages add through the entry-point group ``envgym.commands``, loaded when they are asked for.

An entry point names a function, which becomes a command, or a ``typer.Typer``, which becomes a group of commands::

    [project.entry-points."envgym.commands"]
    plan = "my_package.commands.plan:plan_command"

Its help is its docstring, read by importing the module: import what is heavy inside the function. A command that
cannot be loaded is listed with the reason, and never hides the others. Nobody replaces a command of envgym's own.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from envgym.errors import PluginError, UserError
from envgym.plugins.registry import Registry
from envgym.plugins.spec import PluginSpec

__all__ = ["GROUP", "CommandGroup"]

GROUP = "envgym.commands"
"""The entry-point group."""


class CommandGroup(TyperGroup):
    """The commands of a ``Typer``, and those that other packages add."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return every name: envgym's own in their order, then those that were added, sorted."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in _added() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, imported on first use, or ``None``; one that is broken raises when it is invoked."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in (added := _added()):
            return own
        try:
            return _made(cmd_name, _loaded(added[cmd_name]))
        except UserError as error:
            return _broken(cmd_name, error)


def _added() -> dict[str, PluginSpec]:
    return Registry[Any]("command", GROUP, base="").plugins()


def _loaded(spec: PluginSpec) -> Any:
    found = spec.load()
    if not callable(found):  # a Typer can be called, too
        raise PluginError(
            f"{spec.entry_point} ({spec.distribution}) is no command: it must be a function or a typer.Typer"
        )
    return found


def _made(name: str, found: Any) -> Any:
    """Make the command of a function, or the group of a ``Typer``, in the style of envgym's own."""
    around = typer.Typer(rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        around.add_typer(found, name=name)
    else:
        around.command(name)(found)
    return typer.main.get_group(around).commands[name]


def _broken(name: str, error: UserError) -> TyperCommand:
    def raise_error(**_: Any) -> None:
        raise error

    arguments = {"ignore_unknown_options": True, "allow_extra_args": True}
    help_ = f"Cannot be used: {error}"
    return TyperCommand(name, callback=raise_error, help=help_, context_settings=arguments, rich_markup_mode=None)
