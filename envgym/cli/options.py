"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from envgym.env.services import Services
    from envgym.rollout.cluster import ClusterChoice
    from envgym.rollout.mix import MixEntry

__all__ = [
    "ClusterName",
    "ClusterSettings",
    "EnvironmentId",
    "JsonFlag",
    "JudgeAddress",
    "JudgeSettings",
    "PolicyName",
    "PolicySettings",
    "Sandbox",
    "Settings",
    "SplitName",
    "cluster_of",
    "entry_of",
    "services_of",
]

ClusterName = Annotated[str, typer.Option(metavar="NAME", help="play the episodes on a cluster, e.g. ray")]
ClusterSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--cluster-set", metavar="KEY=VALUE", help="a setting of the cluster, e.g. workers=8; may be repeated"
    ),
]
EnvironmentId = Annotated[str, typer.Argument(help="environment id, e.g. math_problems; see: envgym list")]
JsonFlag = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
JudgeAddress = Annotated[
    str, typer.Option(metavar="URL#MODEL", help="a language model that grades, where the environment asks for one")
]
JudgeSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--judge-set",
        metavar="KEY=VALUE",
        help="max_tokens of the judge's reply, timeout or pause in seconds; may be repeated",
    ),
]
PolicyName = Annotated[
    str,
    typer.Option(
        metavar="NAME|FOLDER|URL",
        help="the policy: gold (the scripted expert), random, empty (says nothing), another policy's name or "
        "package.module:Class, a model's or run's folder (or builtin:tiny, builtin:smollm2), or an "
        "OpenAI-compatible server as URL#MODEL",
    ),
]
PolicySettings = Annotated[
    list[str] | None,
    typer.Option("--policy-set", metavar="KEY=VALUE", help="a setting of the policy; may be repeated"),
]
Sandbox = Annotated[
    str, typer.Option(help="sandbox backend: auto, docker, bubblewrap; auto never takes an unisolated one")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="a setting; may be repeated")
]
SplitName = Annotated[str, typer.Option(help="train or held_out")]


def cluster_of(name: str, settings: list[str] | None) -> ClusterChoice:
    """Return the cluster that ``--cluster`` and ``--cluster-set`` describe, which may be none.

    Raises:
        UserError: no such cluster or setting, or settings without a cluster.
    """
    from envgym.config import parse_settings, validate_settings
    from envgym.rollout.cluster import ClusterChoice

    return validate_settings(ClusterChoice, {"name": name, **parse_settings(settings or [])}, "--cluster")


def entry_of(env: str, settings: list[str] | None) -> MixEntry:
    """Return the mix entry that the arguments ``ENV`` and ``--set`` describe.

    Raises:
        UserError: no such environment, or a pair without ``=``.
    """
    from envgym.config import parse_settings, validate_settings
    from envgym.env.registration import environments
    from envgym.rollout.mix import MixEntry

    environments.find(env)
    return validate_settings(MixEntry, {"env": env, "settings": parse_settings(settings or [])}, env)


def services_of(sandbox: str, judge: str, judge_set: list[str] | None) -> Services:
    """Return the services that ``--sandbox``, ``--judge`` and ``--judge-set`` describe; the caller closes them.

    Raises:
        UserError: no such backend, no server's address, no such setting, or settings of a judge without one.
    """
    from envgym.config import parse_settings
    from envgym.env.services import Services

    return Services(sandbox, judge=judge, judge_settings=parse_settings(judge_set or []))
