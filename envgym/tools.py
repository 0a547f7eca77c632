"""Tools: typed Python functions that a model may call.

``@tool`` marks a method; its schema comes from its signature and docstring. ``run_calls`` answers the calls of
one message: several run at once, results keep their order, and nothing that a model writes can raise.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import pydantic

from envgym.data import Message, ToolCall, ToolSpec
from envgym.errors import EpisodeError, ToolError

__all__ = ["Tool", "ToolInputError", "collect_tools", "run_calls", "tool"]

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__envgym_tool__"
_CUT = "\n[... {} characters cut ...]\n"


class ToolInputError(ValueError):
    """Raised by a tool when its caller is at fault; the message is shown to the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    timeout: float
    max_chars: int
    concurrent: bool


@overload
def tool(function: F) -> F: ...
@overload
def tool(*, timeout: float = 30.0, max_chars: int = 4000, concurrent: bool = True) -> Callable[[F], F]: ...
def tool(
    function: F | None = None, *, timeout: float = 30.0, max_chars: int = 4000, concurrent: bool = True
) -> F | Callable[[F], F]:
    """Mark a method as a tool. Its name, docstring and annotations become the schema.

    Args:
        function: the method, when used without parentheses.
        timeout: seconds before the model is told that the call timed out.
        max_chars: longer results are cut in the middle, visibly.
        concurrent: whether it may run beside other calls of the same message.
    """

    def mark(f: F) -> F:
        setattr(f, _MARK, _Options(timeout=timeout, max_chars=max_chars, concurrent=concurrent))
        return f

    return mark if function is None else mark(function)


class Tool:
    """A callable with its schema and its limits."""

    def __init__(self, function: Callable[..., Any], options: _Options) -> None:
        self.function = function
        self.options = options
        self.arguments = _arguments_model(function)
        schema = self.arguments.model_json_schema()
        schema.pop("title", None)
        for field in schema.get("properties", {}).values():
            field.pop("title", None)
        self.spec = ToolSpec(
            name=function.__name__,
            description=inspect.cleandoc(function.__doc__ or "").split("\n\n")[0],
            parameters=schema,
        )

    async def run(self, call: ToolCall) -> str:
        """Run one well-formed call and return its result as text.

        Raises:
            ToolInputError: the arguments do not fit, the tool refused them, or time ran out.
            ToolError: the tool itself is broken.
        """
        try:
            values = self.arguments.model_validate(call.arguments)
        except pydantic.ValidationError as error:
            raise ToolInputError(self._explain(error)) from None
        keywords = {name: getattr(values, name) for name in type(values).model_fields}
        try:
            async with asyncio.timeout(self.options.timeout):
                result = await _call(functools.partial(self.function, **keywords))
        except TimeoutError:
            raise ToolInputError(f"timed out after {self.options.timeout:g} s") from None
        except (ToolInputError, EpisodeError):
            raise
        except Exception as error:
            raise ToolError(f"tool {self.spec.name!r} raised {type(error).__name__}: {error}") from error
        text = result if isinstance(result, str) else json.dumps(result, default=str)
        return _shorten(text, self.options.max_chars)

    def _explain(self, error: pydantic.ValidationError) -> str:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()[:5]]
        wanted = ", ".join(self.arguments.model_fields)
        return f"wrong arguments: {'; '.join(faults)}. Expected: {wanted or 'no arguments'}"


def collect_tools(owner: object) -> dict[str, Tool]:
    """Every method of ``owner`` that ``@tool`` marked, by name, in the order of definition."""
    names = [n for kind in reversed(type(owner).__mro__) for n in vars(kind)]
    found: dict[str, Tool] = {}
    for name in names:
        options = getattr(inspect.getattr_static(owner, name, None), _MARK, None)
        if options is not None:
            found[name] = Tool(getattr(owner, name), options)
    return found


async def run_calls(
    tools: Mapping[str, Tool], calls: Sequence[ToolCall]
) -> tuple[tuple[Message, ...], dict[str, float]]:
    """Answer every call of one message.

    Returns:
        one tool message per call, in order; and counts: ``tool_calls``, ``tool_errors``, ``tool_malformed``.

    Raises:
        EpisodeError: a tool, or the sandbox behind it, is broken.
    """
    counts: Counter[str] = Counter(tool_calls=len(calls))
    alone = asyncio.Lock()

    async def answer(call: ToolCall) -> Message:
        text = await _answer(tools, call, alone, counts)
        return Message(role="tool", content=text, tool_call_id=call.id)

    pending = [asyncio.ensure_future(answer(call)) for call in calls]
    try:
        messages = await asyncio.gather(*pending)
    finally:
        for task in pending:
            task.cancel()
    return tuple(messages), {name: float(count) for name, count in counts.items()}


async def _answer(tools: Mapping[str, Tool], call: ToolCall, alone: asyncio.Lock, counts: Counter[str]) -> str:
    if call.error is not None:
        counts["tool_malformed"] += 1
        return f"error: {call.error}"
    found = tools.get(call.name)
    if found is None:
        counts["tool_malformed"] += 1
        return f"error: no tool {call.name[:80]!r}; there are: {', '.join(tools) or 'none'}"
    try:
        if found.options.concurrent:
            return await found.run(call)
        async with alone:
            return await found.run(call)
    except ToolInputError as error:
        counts["tool_errors"] += 1
        return f"error: {error}"


def _arguments_model(function: Callable[..., Any]) -> type[pydantic.BaseModel]:
    signature = inspect.signature(function, eval_str=True)
    fields: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.annotation is inspect.Parameter.empty:
            raise TypeError(f"tool {function.__name__!r}: parameter {name!r} needs a type annotation")
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (parameter.annotation, default)
    config = pydantic.ConfigDict(extra="forbid")
    model: type[pydantic.BaseModel] = pydantic.create_model(function.__name__, __config__=config, **fields)
    return model


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    return text[:head] + _CUT.format(len(text) - limit) + text[len(text) - (limit - head) :]


async def _call(function: Callable[[], Any]) -> Any:
    """Await a coroutine function; run a plain one in a daemon thread, which cannot hold up the exit."""
    target = function.func if isinstance(function, functools.partial) else function
    if inspect.iscoroutinefunction(target):
        return await function()
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def deliver(setter: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            setter(value)

    def work() -> None:
        try:
            setter, value = future.set_result, function()
        except BaseException as error:  # noqa: BLE001 - carried over to the awaiting task
            setter, value = future.set_exception, error
        if not loop.is_closed():
            loop.call_soon_threadsafe(deliver, setter, value)

    threading.Thread(target=work, daemon=True, name=f"tool-{getattr(target, '__name__', '')}").start()
    return await future
