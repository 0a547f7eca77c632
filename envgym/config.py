"""Read recipes and settings: pydantic models, unknown keys refused with a suggestion, ``a.b=c`` overrides."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import pydantic

from envgym.errors import RecipeError
from envgym.plain_files import read_text
from envgym.redaction import MARK, quoted, redacted, redacted_values
from envgym.toml_values import check_values, load_toml

__all__ = [
    "NamedSection",
    "Section",
    "apply_overrides",
    "as_table",
    "parse_overrides",
    "parse_settings",
    "read_recipe",
    "validate_settings",
]

Model = TypeVar("Model", bound=pydantic.BaseModel)

_MAX_RECIPE = 2**20
_MAX_DEPTH = 32
_TOLD = 10
"""Faults that one message lists."""


class Section(pydantic.BaseModel):
    """Base of every part of a recipe: frozen, and strict about names.

    A field is documented by ``description=`` or by a string below it; ``envgym recipe`` prints both alike.
    """

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def as_table(value: Any) -> Any:
    """Return the table that a name alone is short for: ``{"name": value}``; anything else as it is."""
    return {"name": value} if isinstance(value, str) else value


class NamedSection(Section):
    """A choice by name, with what belongs to it; a name alone is short for a table with that name."""

    name: str

    @pydantic.model_validator(mode="before")
    @classmethod
    def _may_be_a_name(cls, value: Any) -> Any:
        return as_table(value)


def validate_settings(model: type[Model], values: dict[str, Any], owner: str) -> Model:
    """Validate ``values`` against ``model``.

    Raises:
        RecipeError: names each offending key, its allowed values, and the nearest known name.
    """
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        faults = error.errors()
        # pydantic also reports a list whose items are all invalid as too short; the inner faults say more.
        inner = {fault["loc"][:-1] for fault in faults}
        faults = [f for f in faults if f["type"] != "too_short" or f["loc"] not in inner]
        told = [_explain(model, fault) for fault in faults[:_TOLD]]
        if len(faults) > _TOLD:
            told.append(f"{len(faults) - _TOLD} more faults")
        raise RecipeError(redacted(f"{owner}: " + "\n  and ".join(told))) from None


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the values of a TOML recipe with ``a.b=c`` overrides, not validated.

    Raises:
        RecipeError: the file is missing, too large or not TOML, it holds a value that no key can have, or an
            override is malformed.
    """
    try:
        values = load_toml(read_text(path, _MAX_RECIPE))
        check_values(values)
    except FileNotFoundError:
        raise RecipeError(f"no recipe at {path}; the shipped ones are in recipes/") from None
    except ValueError as error:
        raise RecipeError(f"{path}: not a readable TOML file: {error}") from None
    apply_overrides(values, parse_overrides(overrides))
    if MARK in str(values):
        raise RecipeError(
            f"{path}: {MARK} stands where a key stood, which no run's folder keeps: write the key back, or give "
            "it in ENVGYM_API_KEY and take it out of the address"
        )
    return values


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs; a value is TOML where it parses as such, and a string otherwise.

    Raises:
        RecipeError: a pair has no ``=``, or a value that no key can have.
    """
    values: dict[str, Any] = {}
    for item in overrides:
        key, sign, text = item.partition("=")
        key = key.strip()
        if not sign or not key:
            raise RecipeError(f"override {quoted(item)} must read key=value, e.g. train.steps=20")
        try:
            values[key] = _parsed(text)
            check_values({key: values[key]})
        except ValueError as error:
            raise RecipeError(f"override {quoted(item)}: {error}") from None
    return values


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs as the settings of one plugin; a dotted key sets a value inside a table.

    Raises:
        RecipeError: a pair has no ``=``, a value that no key can have, or steps into something that is no table.
    """
    settings: dict[str, Any] = {}
    apply_overrides(settings, parse_overrides(pairs))
    return settings


def _parsed(text: str) -> Any:
    try:
        found = load_toml(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # A date, or text that spans several keys, is meant as plain text.
    whole = found.keys() == {"value"} and isinstance(found["value"], bool | int | float | str | list | dict)
    return found["value"] if whole else text


def apply_overrides(values: dict[str, Any], overrides: dict[str, Any]) -> None:
    """Set dotted keys in nested tables, in place; a number steps into a list, e.g. ``mix.0.weight``.

    Raises:
        RecipeError: a key steps into something that is not a table.
    """
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        if len(parents) >= _MAX_DEPTH:
            raise RecipeError(f"override {quoted(dotted)}: no key is more than {_MAX_DEPTH} levels deep")
        place: Any = values
        for name in parents:
            place = place.setdefault(name, {}) if isinstance(place, dict) else _item(place, name, dotted)
        if isinstance(place, dict):
            place[last] = value
        else:
            _item(place, last, dotted)
            place[int(last)] = value


def _item(place: Any, name: str, dotted: str) -> Any:
    if not isinstance(place, list):
        raise RecipeError(
            f"override {quoted(dotted)}: there is no {quoted(name)} inside {quoted(place)}, which is not a table"
        )
    if name.isdecimal() and len(name) < 10 and int(name) < len(place):
        return place[int(name)]
    raise RecipeError(f"override {quoted(dotted)}: {quoted(name)} is not an index; here 0 to {len(place) - 1} are")


def _explain(model: type[pydantic.BaseModel], error: Any) -> str:
    path = [f"{p!s:.80}" for p in error["loc"]]
    where = ".".join(path)
    if error["type"] == "value_error":  # raised by a validator of ours: its message is complete
        return f"{where}: {error['ctx']['error']}".removeprefix(": ")
    if error["type"] == "missing":
        return f"{where}: is missing"
    name = path[-1] if path else ""
    got = quoted(redacted_values({name: error["input"]})[name])
    if error["type"] in ("model_type", "dict_type"):
        return f"{where}: must be a table (got {got})"
    if error["type"] in ("tuple_type", "list_type"):
        return f"{where}: must be a list, e.g. [{got}]"
    if error["type"] != "extra_forbidden":
        return f"{where or 'value'}: {error['msg']} (got {got})"
    known = _fields_at(model, path[:-1])
    near = difflib.get_close_matches(path[-1], known, n=1)
    suggestion = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown key {where!r}; {suggestion}allowed here: {', '.join(known) or 'none'}"


def _fields_at(model: type[pydantic.BaseModel], path: Sequence[str]) -> list[str]:
    current: Any = model
    for name in path:
        fields = getattr(current, "model_fields", {})
        if name in fields:
            current = next(iter(_models_in(fields[name].annotation)), None)
    return sorted(getattr(current, "model_fields", {}))


def _models_in(annotation: Any) -> Iterable[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
