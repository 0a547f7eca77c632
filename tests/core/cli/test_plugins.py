"""``envgym list`` knows every kind of plugin, and what is shipped can be loaded."""

from __future__ import annotations

from importlib import metadata

import pytest
from commands import Run

from envgym.cli.commands import GROUP
from envgym.plugins.kinds import Kind


@pytest.mark.parametrize("kind", list(Kind))
def test_every_shipped_plugin_can_be_loaded(run: Run, kind: Kind) -> None:
    done = run("list", "--kind", kind, "--check", "--json")
    assert [row["problem"] for row in done.data] == [""] * len(done.data)
    assert done.code == 0
    shipped = {p.name for p in metadata.entry_points(group=f"envgym.{kind}")}
    assert {row["id"] for row in done.data} == shipped


def test_every_entry_point_group_of_the_project_is_a_kind_or_that_of_commands() -> None:
    groups = {p.group for p in metadata.distribution("envgym").entry_points} - {
        "console_scripts",
        "vllm.general_plugins",
    }
    assert groups <= {GROUP, *(f"envgym.{kind}" for kind in Kind)}


def test_a_kind_that_does_not_exist_is_a_usage_error(run: Run) -> None:
    done = run("list", "--kind", "planets")
    assert (done.code, "environments" in done.err) == (2, True)


@pytest.mark.parametrize("kind", list(Kind))
def test_the_table_of_kinds_says_of_each_registry_what_the_registry_says(kind: Kind) -> None:
    registry = kind.load_registry()
    assert (registry.kind, registry.group) == (kind.singular, kind.group)
