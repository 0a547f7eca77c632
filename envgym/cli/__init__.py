"""The ``envgym`` command. Data goes to standard output, everything else to standard error.

Commands import what they need when they run, so that ``--help`` and ``list`` stay quick.

Exit codes: 0 done; 1 the work failed; 2 the request cannot be carried out as written; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Annotated

import typer

from envgym.cli import engines, environments, evaluation, plugins, quality, recipe, sandboxes, simulation, training
from envgym.cli.commands import CommandGroup
from envgym.errors import EnvgymError, UserError
from envgym.terminal import guarded_streams

__all__ = ["app", "main"]

app = typer.Typer(
    name="envgym",
    cls=CommandGroup,
    help="A gym for agentic post-training: environments that verify, and a trainer that steps any of them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"envgym {metadata.version('envgym')}")
        raise typer.Exit


@app.callback()
def common_options(
    version: Annotated[
        bool,
        typer.Option("--version", help="print the version, and do nothing else", callback=_print_version),
    ] = False,
) -> None:
    """Declare the options that stand before any command."""


plugins.add_to(app)
environments.add_to(app)
quality.add_to(app)
evaluation.add_to(app)
training.add_to(app)
simulation.add_to(app)
recipe.add_to(app)
sandboxes.add_to(app)
engines.add_to(app)


def main() -> None:
    """Run the command line. A user's mistake ends with its message and no traceback."""
    code = 0
    with guarded_streams():
        try:
            app(prog_name="envgym")
        except* UserError as group:
            code = _report(group, 2)
        except* EnvgymError as group:
            code = _report(group, code or 1)
    sys.exit(code)


def _report(group: BaseExceptionGroup[EnvgymError], code: int) -> int:
    """Print every message once, as concurrent episodes report the same mistake, and return ``code``."""
    for text in dict.fromkeys(str(error) for error in _leaves(group)):
        print(f"error: {text}", file=sys.stderr)
    return code


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
