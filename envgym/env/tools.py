"""Tools: typed Python functions that a model may call.

``@tool`` marks a method; its schema comes from its signature and docstring. ``run_calls`` answers the calls of
one message: several run at once, results keep their order, and nothing that a model writes can raise.

A plain function runs in a thread of its own, which is told to end after a timeout: ``SystemExit`` is raised in it
as soon as it runs Python code. A call of C runs on, its result discarded; the process ends nonetheless.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import pydantic

from envgym.env.bounded import Late, bounded
from envgym.env.clock import loop_clock
from envgym.env.culprit import culprit, is_authors
from envgym.env.stall import raise_in, stack
from envgym.errors import EnvgymError, ToolError
from envgym.records import Message, ToolCall, ToolSpec

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
        timeout: seconds before the model is told that the call timed out; those for which another episode blocks
            the event loop do not count.
        max_chars: longer results are cut in the middle, visibly.
        concurrent: true if it may run beside other calls of the same message; if not, the calls written before
            it have ended when it begins, and those after it begin when it has ended.
    """

    def mark(f: F) -> F:
        setattr(f, _MARK, _Options(timeout=timeout, max_chars=max_chars, concurrent=concurrent))
        return f

    return mark if function is None else mark(function)


class Tool:
    """A callable with its schema and its limits.

    Raises:
        TypeError: a parameter has no annotation, or cannot be passed by name.
    """

    def __init__(self, function: Callable[..., Any], options: _Options) -> None:
        self.function = function
        self.options = options
        self._parameters = _parameters(function)
        self.arguments = _arguments_model(function.__name__, self._parameters)
        schema = self.arguments.model_json_schema()
        schema.pop("title", None)
        for field in schema.get("properties", {}).values():
            field.pop("title", None)
        self.spec = ToolSpec(
            name=function.__name__,
            description=inspect.cleandoc(function.__doc__ or "").split("\n\n")[0],
            parameters=schema,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.function, self.options)

    async def run(self, call: ToolCall) -> str:
        """Run one well-formed call and return its result as text.

        Raises:
            ToolInputError: the arguments do not fit, the tool refused them, or time ran out.
            ToolError: the tool itself is broken.
            EnvgymError: another error of this tree that the tool raised.
        """
        try:
            values = self.arguments.model_validate(call.arguments)
        except pydantic.ValidationError as error:
            raise ToolInputError(self._explain(error)) from None
        keywords = {p.name: getattr(values, f"argument_{i}") for i, p in enumerate(self._parameters)}
        name = self.spec.name
        try:
            result = await bounded(
                _call(functools.partial(self.function, **keywords)), self.options.timeout, f"tool {name}"
            )
            return result if isinstance(result, str) else json.dumps(result, default=str, ensure_ascii=False)
        except (ToolInputError, EnvgymError):
            raise
        except Late:
            raise ToolInputError(f"timed out after {self.options.timeout:g} s") from None
        except BaseException as error:
            if not is_authors(error):
                raise
            raise ToolError(f"tool {name!r} raised {type(error).__name__}: {error}".removesuffix(": ")) from error

    def present(self, text: str) -> str:
        """Return ``text`` as the model sees it: storable, and cut in the middle where it is too long."""
        return _shorten(text.encode("utf-8", "replace").decode("utf-8"), self.options.max_chars)

    def _explain(self, error: pydantic.ValidationError) -> str:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()[:5]]
        wanted = ", ".join(p.name for p in self._parameters)
        return f"wrong arguments: {'; '.join(faults)}. Expected: {wanted or 'no arguments'}"


def collect_tools(owner: object) -> dict[str, Tool]:
    """Return every method of ``owner`` that ``@tool`` marked, by name, in the order of definition."""
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
        EpisodeError: a tool, or the sandbox behind it, is broken. No call still runs when it is raised.
    """
    counts: Counter[str] = Counter(tool_calls=len(calls), tool_errors=0, tool_malformed=0)
    texts: list[str] = []
    for batch in _batches(tools, calls):
        pending = [asyncio.ensure_future(_answer(tools, call, counts)) for call in batch]
        try:
            texts += await asyncio.gather(*pending)
        finally:
            # A broken call ends the episode: its siblings must free what they hold before the error propagates.
            for task in pending:
                task.cancel()
            # Each is bounded, and comes to an end.
            await asyncio.wait(pending)
    answers = [
        Message(role="tool", content=text, tool_call_id=call.id) for text, call in zip(texts, calls, strict=True)
    ]
    return tuple(answers), {name: float(count) for name, count in counts.items()}


def _batches(tools: Mapping[str, Tool], calls: Sequence[ToolCall]) -> Iterator[list[ToolCall]]:
    """Yield batches of calls that may run concurrently, in the order written."""
    batch: list[ToolCall] = []
    for call in calls:
        if call.error is None and call.name in tools and not tools[call.name].options.concurrent:
            if batch:
                yield batch
            yield [call]
            batch = []
        else:
            batch.append(call)
    if batch:
        yield batch


async def _answer(tools: Mapping[str, Tool], call: ToolCall, counts: Counter[str]) -> str:
    if call.error is not None:
        counts["tool_malformed"] += 1
        return f"error: {call.error}"
    found = tools.get(call.name)
    if found is None:
        counts["tool_malformed"] += 1
        return f"error: no tool {call.name[:80]!r}; there are: {', '.join(tools) or 'none'}"
    try:
        return found.present(await found.run(call))
    except ToolInputError as error:
        counts["tool_errors"] += 1
        return found.present(f"error: {error}")


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


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    return text[:head] + _CUT.format(len(text) - limit) + text[len(text) - (limit - head) :]


async def _call(function: Callable[[], Any]) -> Any:
    """Await a coroutine function; run a plain one in a daemon thread, which cannot delay the exit."""
    target = function.func if isinstance(function, functools.partial) else function
    if inspect.iscoroutinefunction(target):
        return await function()
    name = getattr(target, "__name__", "")
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def deliver(result: Any, error: BaseException | None) -> None:
        if not future.done():
            future.set_result((result, error))

    def work() -> None:
        result: Any = None
        raised: BaseException | None = None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - carried over to the awaiting task
            raised = error
        with contextlib.suppress(RuntimeError):  # the loop may be gone by the time a slow call ends
            loop.call_soon_threadsafe(deliver, result, raised)

    thread = threading.Thread(target=work, daemon=True, name=f"tool-{name}")
    thread.start()
    try:
        result, error = await future
    except asyncio.CancelledError:
        _stop(thread)
        raise
    if error is not None:
        raise error
    return result


def _stop(thread: threading.Thread) -> None:
    """Tell a thread to end, which it does as soon as it runs Python code; until then it goes on by itself."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is not None:
        loop_clock().abandoned[culprit(stack(frame)) or thread.name] += 1
        raise_in(thread.ident or 0, SystemExit)
