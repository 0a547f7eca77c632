"""A wrong recipe or setting is refused with its place, what is allowed there, and what was perhaps meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.config import Section, apply_overrides, parse_overrides, read_recipe, validate_settings
from envgym.errors import RecipeError


class Inner(Section):
    depth: int = pydantic.Field(default=1, ge=0)
    kind: Literal["a", "b"] = "a"


class Item(Section):
    env: str
    weight: float = 1.0
    inner: Inner = Inner()


class Recipe(Section):
    steps: int = 10
    name: str = ""
    tags: tuple[Literal["x", "y"], ...] = pydantic.Field(default=("x",), min_length=1)
    optional: Inner | None = None
    mix: tuple[Item, ...] = (Item(env="e"),)
    free: dict[str, Any] = pydantic.Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _fit_together(self) -> Recipe:
        if self.steps == 13:
            raise ValueError("steps: not on a ship")
        return self


TOML = 'steps = 3\n[[mix]]\nenv = "a"\n[[mix]]\nenv = "b"\nweight = 2.0\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(TOML)
    return path


def load(recipe: Path, overrides: list[str]) -> Recipe:
    """As ``envgym train`` does it."""
    return validate_settings(Recipe, read_recipe(recipe, overrides), recipe.name)


def test_overrides_reach_every_level_and_keep_their_types(recipe: Path) -> None:
    loaded = load(
        recipe,
        [
            "steps=20",
            "name=plain words",
            "tags=['y','x']",
            "optional.depth=4",
            "mix.1.weight=0.5",
            "mix.0.inner.kind=b",
            "free.a.b={c = [1, true]}",
        ],
    )
    assert loaded.steps == 20
    assert loaded.name == "plain words"
    assert loaded.tags == ("y", "x")
    assert loaded.optional == Inner(depth=4)
    assert [item.weight for item in loaded.mix] == [1.0, 0.5]
    assert loaded.mix[0].inner.kind == "b"
    assert loaded.free == {"a": {"b": {"c": [1, True]}}}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stepz=1", "recipe.toml: unknown key 'stepz'; did you mean 'steps'? allowed here: free, mix, name,"),
        ("zzzz=1", "unknown key 'zzzz'; allowed here: free, mix, name, optional, steps, tags"),
        ("mix.0.wieght=1", "unknown key 'mix.0.wieght'; did you mean 'weight'? allowed here: env, inner, weight"),
        ("mix.1.inner.dept=1", "unknown key 'mix.1.inner.dept'; did you mean 'depth'? allowed here: depth, kind"),
        ("optional.knid=1", "unknown key 'optional.knid'; did you mean 'kind'? allowed here: depth, kind"),
        (
            "steps=many",
            "steps: Input should be a valid integer, unable to parse string as an integer (got 'many')",
        ),
        ("steps=13", "recipe.toml: steps: not on a ship"),
        ("optional.depth=-1", "optional.depth: Input should be greater than or equal to 0 (got -1)"),
        ("optional.kind=c", "optional.kind: Input should be 'a' or 'b' (got 'c')"),
        ("optional=3", "optional: must be a table (got 3)"),
        ("mix.0=3", "mix.0: must be a table (got 3)"),
        ("mix.0={}", "mix.0.env: is missing"),
        ("tags=x", "tags: must be a list, e.g. ['x']"),
        ("tags=[]", "tags: Tuple should have at least 1 item"),
        ("steps.deeper=1", "override 'steps.deeper': there is no 'deeper' inside 3, which is not a table"),
        ("steps.a.b=1", "override 'steps.a.b': there is no 'a' inside 3"),
        ("mix.2.weight=1", "override 'mix.2.weight': '2' is not an index; here 0 to 1 are"),
        ("mix.²=1", "'²' is not an index"),
        ("mix.first.weight=1", "'first' is not an index; here 0 to 1 are"),
        ("steps", "override 'steps' must read key=value, e.g. train.steps=20"),
        ("=1", "override '=1' must read key=value"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_is_allowed(recipe: Path, override: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(recipe, [override])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_every_mistake_is_told_once(recipe: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(recipe, ["steps=a", "tags=['z']", "nmae=1"])
    lines = str(caught.value).split("\n  and ")
    assert len(lines) == 3
    assert all(any(words in line for line in lines) for words in ("steps", "tags.0", "'nmae'"))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a = ", "not a readable TOML file"), (b"\xff", "not a readable TOML file"), (None, "no recipe at")],
)
def test_an_unreadable_recipe_names_the_file(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "broken.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=words) as caught:
        read_recipe(path)
    assert "broken.toml" in str(caught.value)
    with pytest.raises(RecipeError, match="not a readable TOML file"):
        read_recipe(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1e-6", 1e-6),
        ("true", True),
        ("'1'", "1"),
        ("[1, 2]", [1, 2]),
        ("{a = 1}", {"a": 1}),
        ("####", "####"),
        ("", ""),
        ("a=b", "a=b"),
        ("2024-01-01", "2024-01-01"),
        ("1\nother = 2", "1\nother = 2"),
        ("C:\\x", "C:\\x"),
    ],
)
def test_a_value_is_toml_or_else_a_string(text: str, value: object) -> None:
    assert parse_overrides([f"k={text}"]) == {"k": value}


def refusal(act: Callable[[], object]) -> str:
    """What a refusal says; nothing where there is none."""
    try:
        act()
    except RecipeError as error:
        return str(error)
    return ""


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text() | st.sampled_from(["b", "0", "free", "mix", "steps"]), max_size=3), st.text())
def test_an_override_is_put_where_it_says_or_refused(path: list[str], text: str) -> None:
    """Whatever is written: its value stands at its key, or the one error says what is wrong with it."""
    values: dict[str, Any] = {"free": {"b": [1]}, "mix": [{"env": "e"}]}
    overrides: dict[str, Any] = {}
    refused = refusal(lambda: overrides.update(parse_overrides([f"{'.'.join(path)}={text}"])))
    refused = refused or refusal(lambda: apply_overrides(values, overrides))
    assert not refused or refused.startswith("override ")
    for dotted, value in () if refused else overrides.items():
        place: Any = values
        for name in dotted.split("."):
            place = place[int(name)] if isinstance(place, list) else place[name]
        assert place is value
    invalid = refusal(lambda: validate_settings(Recipe, values, "here"))
    assert not invalid or invalid.startswith("here: ")


def test_settings_are_frozen() -> None:
    with pytest.raises(pydantic.ValidationError):
        validate_settings(Recipe, {}, "here").steps = 2  # type: ignore[misc]
