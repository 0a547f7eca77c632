"""The keys of a recipe are read off its model: types, bounds and defaults as TOML has them."""

from __future__ import annotations

import enum
import tomllib
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envgym.config import Section
from envgym.runs.recipe_keys import Key, Table, read_tables
from envgym.runs.recipe_text import as_markdown, as_starter, as_text, toml_value


class Mode(enum.StrEnum):
    FAST = "fast"
    SLOW = "slow"


class Inner(Section):
    """Inside."""

    share: float = pydantic.Field(default=0.5, gt=0, le=1, description="a share")


class Item(Section):
    """One of several."""

    env: str = pydantic.Field(description="a name", examples=["x"])
    settings: dict[str, Any] = pydantic.Field(default_factory=dict, description="anything")


class Whole(Section):
    """A recipe of every shape."""

    steps: int = pydantic.Field(default=3, ge=1, description="how long")
    mode: Mode = Mode.FAST
    """A docstring describes as well."""
    decay: Literal["constant", "linear"] = pydantic.Field(default="linear", description="a | b")
    betas: tuple[float, float] = pydantic.Field(default=(0.9, 0.95), description="two")
    names: tuple[str, ...] = pydantic.Field(default=("a",), min_length=1, description="some")
    cap: float | None = pydantic.Field(default=None, gt=0, description="may be unset")
    cores: int = pydantic.Field(default_factory=lambda: 4, description="differs between machines")
    inner: Inner = pydantic.Field(default=Inner(share=0.25), description="With a default of its own.")
    new: Inner | None = pydantic.Field(default=None, description="Perhaps.")
    items: tuple[Item, ...] = pydantic.Field(min_length=1, description="Several.")
    roles: dict[str, Inner] = pydantic.Field(default_factory=dict, description="By name.")


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    return {table.path: table for table in read_tables(Whole)}


@pytest.mark.parametrize(
    ("path", "name", "kind", "bounds", "default"),
    [
        ("", "steps", "integer", "≥ 1", 3),
        ("", "mode", '"fast" or "slow"', "", "fast"),
        ("", "decay", '"constant" or "linear"', "", "linear"),
        ("", "betas", "[number, number]", "", [0.9, 0.95]),
        ("", "names", "list of strings", "at least 1", ["a"]),
        ("", "cap", "number", "> 0", None),
        ("", "cores", "integer", "", None),
        ("inner", "share", "number", "> 0, ≤ 1", 0.25),
        ("new", "share", "number", "> 0, ≤ 1", 0.5),
        ("items", "settings", "table", "", {}),
    ],
)
def test_a_key_has_type_bounds_and_default(
    tables: dict[str, Table], path: str, name: str, kind: str, bounds: str, default: Any
) -> None:
    key = _key(tables[path], name)
    assert (key.kind, key.bounds, key.default) == (kind, bounds, default)
    assert not key.required


def test_a_required_key_says_so_and_shows_an_example(tables: dict[str, Table]) -> None:
    key = _key(tables["items"], "env")
    assert key.required
    assert key.default == "x"


def test_tables_tell_lists_optional_ones_and_named_ones_apart(tables: dict[str, Table]) -> None:
    assert {path: (t.repeated, t.optional) for path, t in tables.items()} == {
        "": (False, False),
        "inner": (False, False),
        "new": (False, True),
        "items": (True, False),
        "roles.NAME": (False, True),
    }


def test_a_docstring_below_a_field_is_its_description(tables: dict[str, Table]) -> None:
    assert _key(tables[""], "mode").description == "A docstring describes as well."


def test_text_and_markdown_show_every_key_with_its_description(tables: dict[str, Table]) -> None:
    text, page = as_text(tables.values()), as_markdown(tables.values())
    for table in tables.values():
        for key in table.keys:
            assert f"  {key.name} = " in text
            assert f"| `{key.name}` |" in page
            assert key.description in text
    assert "a \\| b" in page, "a bar would end the cell"
    assert "[[items]]" in text


def test_the_starter_says_what_must_be_set_where_there_is_no_example() -> None:
    class Bare(Section):
        """A key without an example."""

        url: str = pydantic.Field(description="where")

    assert "# url must be set" in as_starter(read_tables(Bare), "a command", {}).splitlines()


TOML_VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(max_codepoint=126)),
    lambda inner: st.lists(inner) | st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), inner),
    max_leaves=8,
)


@given(TOML_VALUES)
def test_a_default_reads_back_from_its_toml(value: Any) -> None:
    assert tomllib.loads(f"key = {toml_value(value)}") == {"key": value}


def _key(table: Table, name: str) -> Key:
    (key,) = (k for k in table.keys if k.name == name)
    return key
