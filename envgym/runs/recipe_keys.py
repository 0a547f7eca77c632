"""Read the keys of a recipe, or of a plugin's settings, from the pydantic model that validates them."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

__all__ = ["Key", "Table", "read_tables"]

_RULES = (
    (annotated_types.Ge, "ge", "≥"),
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Le, "le", "≤"),
    (annotated_types.Lt, "lt", "<"),
    (annotated_types.MinLen, "min_length", "at least"),
    (annotated_types.MaxLen, "max_length", "at most"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of a table."""

    name: str
    kind: str
    """Type in TOML's terms: ``integer``, ``"constant" or "linear"``, ``list of strings``."""
    bounds: str
    """Such as ``≥ 0, < 1``; empty if every value of the type is allowed."""
    default: Any
    """``None`` if the key is unset by default."""
    required: bool
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of a recipe; the keys of tables inside it follow as tables of their own."""

    path: str
    """Dotted name; empty for the top of the recipe."""
    about: str
    repeated: bool
    """Written ``[[path]]``, once for each item of a list."""
    optional: bool
    """Left out by default."""
    keys: tuple[Key, ...]


def read_tables(model: type[pydantic.BaseModel], path: str = "", *, about: str = "") -> Iterator[Table]:
    """Yield the table of ``model``, then those of the models inside it, in the order of their fields.

    Args:
        model: the model that validates the table.
        path: dotted name of the table; ``""`` for the top of a recipe.
        about: purpose of the table; the first paragraph of the model's docstring by default.
    """
    yield from _read(model, None, Table(path=path, about=_text(about), repeated=False, optional=False, keys=()))


def _read(model: type[pydantic.BaseModel], defaults: pydantic.BaseModel | None, table: Table) -> Iterator[Table]:
    keys: list[Key] = []
    inner: list[Table] = []
    for name, field in model.model_fields.items():
        default = getattr(defaults, name) if defaults is not None else _default(field)
        nested, shape = _nested(field.annotation)
        if nested is None:
            keys.append(_key(name, field, default))
            continue
        place = f"{table.path}.{name}".removeprefix(".") + (".NAME" if shape is dict else "")
        below = Table(
            path=place,
            about=_text(field.description),
            repeated=shape is tuple,
            optional=table.optional or default is None or shape is dict,
            keys=(),
        )
        inner += _read(nested, default if isinstance(default, nested) else None, below)
    about = table.about or _text((model.__doc__ or "").strip().split("\n\n")[0])
    yield replace(table, about=about, keys=tuple(keys))
    yield from inner


def _key(name: str, field: FieldInfo, default: Any) -> Key:
    required = default is PydanticUndefined
    return Key(
        name=name,
        kind=_kind(field.annotation),
        bounds=_bounds(field),
        default=next(iter(field.examples or []), None) if required else _plain(default),
        required=required,
        description=_text(field.description),
    )


def _default(field: FieldInfo) -> Any:
    """Return a field's default; ``None`` for one that is computed on each machine."""
    default = field.get_default(call_default_factory=True, validated_data={})
    fixed = field.default_factory is None or isinstance(default, dict | list | tuple | pydantic.BaseModel)
    return default if fixed else None


def _text(documentation: str | None) -> str:
    return " ".join((documentation or "").replace("``", "`").split())


def _plain(value: Any) -> Any:
    """Convert a default to a value that TOML can hold."""
    match value:
        case pydantic.BaseModel():
            return _plain(value.model_dump(exclude_none=True))
        case enum.Enum():
            return value.value
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case tuple() | list():
            return [_plain(item) for item in value]
        case _:
            return value


def _nested(annotation: Any) -> tuple[type[pydantic.BaseModel] | None, type | None]:
    """Return the model that a field holds, and ``tuple`` or ``dict`` if it holds a collection of them."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation, None
    origin, arguments = get_origin(annotation), [a for a in get_args(annotation) if a is not type(None)]
    if origin in (Union, types.UnionType) and len(arguments) == 1:
        return _nested(arguments[0])
    if origin in (tuple, list, dict) and arguments:
        item = arguments[1] if origin is dict else arguments[0]
        if isinstance(item, type) and issubclass(item, pydantic.BaseModel):
            return item, dict if origin is dict else tuple
    return None, None


_NAMES: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", Any: "any value"}


def _kind(annotation: Any) -> str:
    if annotation in _NAMES:
        return _NAMES[annotation]
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _alternatives([member.value for member in annotation])
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _alternatives(arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(a) for a in arguments if a is not type(None))
    if origin is dict or annotation is dict:
        return "table"
    if origin in (tuple, list):
        items = [a for a in arguments if a is not Ellipsis]
        if origin is tuple and Ellipsis not in arguments:
            return f"[{', '.join(map(_kind, items))}]"
        return f"list of {_plural(_kind(items[0]))}"
    return getattr(annotation, "__name__", str(annotation))


def _alternatives(values: Sequence[Any]) -> str:
    return " or ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in values)


def _plural(kind: str) -> str:
    return f"{kind}s" if kind in _NAMES.values() else kind


def _bounds(field: FieldInfo) -> str:
    return ", ".join(
        f"{sign} {getattr(rule, attribute):g}"
        for rule in field.metadata
        for kind, attribute, sign in _RULES
        if isinstance(rule, kind)
    )
