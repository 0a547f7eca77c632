"""The ``envgym`` command. Data goes to standard output, everything else to standard error.

Exit codes: 0 done; 1 the work failed; 2 the request cannot be carried out as written; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys

import typer

from envgym.cli import environments, evaluation, training
from envgym.errors import EnvgymError, UserError

__all__ = ["app", "main"]

app = typer.Typer(
    name="envgym",
    help="A gym for agentic post-training: environments that verify, and a trainer that steps any of them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
environments.add_to(app)
evaluation.add_to(app)
training.add_to(app)


def main() -> None:
    """Run the command line. A mistake of the user's ends with its message and no traceback."""
    try:
        app()
    except* UserError as group:
        _fail(group, 2)
    except* EnvgymError as group:
        _fail(group, 1)
    except* KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def _fail(group: BaseExceptionGroup[EnvgymError], code: int) -> None:
    errors: list[BaseException] = list(group.exceptions)
    while errors:
        error = errors.pop(0)
        if isinstance(error, BaseExceptionGroup):
            errors = [*error.exceptions, *errors]
        else:
            print(f"error: {error}", file=sys.stderr)
    sys.exit(code)
