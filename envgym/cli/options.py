"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["EnvironmentId", "JsonFlag", "Sandbox", "Settings", "SplitName"]

EnvironmentId = Annotated[str, typer.Argument(help="environment id, e.g. math_problems; see: envgym list")]
JsonFlag = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
Sandbox = Annotated[
    str, typer.Option(help="sandbox backend: auto, docker, bubblewrap; auto never takes an unisolated one")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="a setting; may be repeated")
]
SplitName = Annotated[str, typer.Option(help="train or held_out")]
