"""A tool's name, schema and arguments, read once from the function that it is made of."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pydantic
from pydantic import JsonValue

from envgym.records import ToolSpec

__all__ = ["ArgumentError", "Signature", "signature_of"]


class ArgumentError(ValueError):
    """The arguments of a call do not fit; the message is for the model."""


class Signature:
    """The parameters of a tool.

    Args:
        function: its name, docstring and annotations become the schema.

    Raises:
        TypeError: a parameter has no annotation, or cannot be passed by name.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.asynchronous = inspect.iscoroutinefunction(function)
        """Whether calls give coroutines."""
        parameters = _parameters(function)
        self._fields = [(f"argument_{i}", parameter.name) for i, parameter in enumerate(parameters)]
        self._arguments = _arguments_model(function.__name__, parameters)
        schema = self._arguments.model_json_schema()
        schema.pop("title", None)
        for field in schema.get("properties", {}).values():
            field.pop("title", None)
        self.spec = ToolSpec(
            name=function.__name__,
            description=inspect.cleandoc(function.__doc__ or "").split("\n\n")[0],
            parameters=schema,
        )

    def keywords(self, arguments: dict[str, JsonValue]) -> dict[str, Any]:
        """Return the values to call the function with, by parameter.

        Raises:
            ArgumentError: the arguments do not fit.
        """
        try:
            values = vars(self._arguments.model_validate(arguments))
        except pydantic.ValidationError as error:
            raise ArgumentError(self._explain(error)) from None
        return {name: values[field] for field, name in self._fields}

    def _explain(self, error: pydantic.ValidationError) -> str:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()[:5]]
        wanted = ", ".join(name for _, name in self._fields)
        return f"wrong arguments: {'; '.join(faults)}. Expected: {wanted or 'no arguments'}"


_read: weakref.WeakKeyDictionary[Callable[..., Any], Signature] = weakref.WeakKeyDictionary()


def signature_of(function: Callable[..., Any]) -> Signature:
    """Return the signature of a function or a method, read once for all instances of its class.

    Raises:
        TypeError: see ``Signature``.
    """
    if not inspect.ismethod(function):
        return Signature(function)
    found = _read.get(function.__func__)
    if found is None:
        found = _read[function.__func__] = Signature(function)
    return found


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    for parameter in parameters:
        if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            raise TypeError(f"tool {function.__name__!r}: parameter {parameter.name!r} must be passed by name")
        if parameter.annotation is inspect.Parameter.empty:
            raise TypeError(f"tool {function.__name__!r}: parameter {parameter.name!r} needs a type annotation")
    return parameters


def _arguments_model(name: str, parameters: Sequence[inspect.Parameter]) -> type[pydantic.BaseModel]:
    """Make the model of the arguments; its field names are neutral, for a parameter may be called ``schema``."""
    fields: dict[str, Any] = {}
    for i, parameter in enumerate(parameters):
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[f"argument_{i}"] = (parameter.annotation, pydantic.Field(default, alias=parameter.name))
    config = pydantic.ConfigDict(extra="forbid")
    model: type[pydantic.BaseModel] = pydantic.create_model(name, __config__=config, **fields)
    return model
