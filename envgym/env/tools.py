"""Tools: typed Python functions that a model may call.

``@tool`` marks a method; its schema comes from its signature and docstring. ``run_calls`` answers the calls of
one message: several run at once, results keep their order, and nothing that a model writes can raise. A plain
function runs in a thread; see ``envgym.env.tool_calls``.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from envgym.env.bounded import Late, bounded
from envgym.env.culprit import is_authors
from envgym.env.shared_tools import SharedTools
from envgym.env.tool_calls import in_a_thread
from envgym.env.tool_signature import ArgumentError, signature_of
from envgym.errors import EnvgymError, ToolError
from envgym.records import Message, ToolCall

__all__ = ["Tool", "ToolInputError", "collect_tools", "run_calls", "tool"]

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__envgym_tool__"
_sorted_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode
_CUT = "\n[... {} characters cut ...]\n"


class ToolInputError(ValueError):
    """Raised by a tool when its caller is at fault; the message is shown to the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    timeout: float
    max_chars: int
    concurrent: bool
    limit: int | None
    cache: bool


@overload
def tool(function: F) -> F: ...
@overload
def tool(
    *,
    timeout: float = 30.0,
    max_chars: int = 4000,
    concurrent: bool = True,
    limit: int | None = None,
    cache: bool = False,
) -> Callable[[F], F]: ...
def tool(
    function: F | None = None,
    *,
    timeout: float = 30.0,
    max_chars: int = 4000,
    concurrent: bool = True,
    limit: int | None = None,
    cache: bool = False,
) -> F | Callable[[F], F]:
    """Mark a method as a tool. Its name, docstring and annotations become the schema.

    Args:
        function: the method, when used without parentheses.
        timeout: seconds before the model is told that the call timed out; those for which another episode blocks
            the event loop do not count.
        max_chars: longer results are cut in the middle, visibly.
        concurrent: true if it may run beside other calls of the same message; if not, the calls written before
            it have ended when it begins, and those after it begin when it has ended.
        limit: calls at once in all episodes of a run together; ``None`` for any number. Further calls wait, first
            come first served: ``timeout`` begins when a call does, the episode's deadline goes on meanwhile. A
            recipe may say otherwise in ``tools.limits``.
        cache: true if the result depends on the environment's settings and the arguments alone, and on nothing of
            the episode, so that equal calls of a run may share it. Errors are not kept.

    Raises:
        ValueError: ``limit`` is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, or None for any number of calls at once; got {limit}")

    def mark(f: F) -> F:
        options = _Options(timeout=timeout, max_chars=max_chars, concurrent=concurrent, limit=limit, cache=cache)
        setattr(f, _MARK, options)
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
        self._signature = signature_of(function)
        self.spec = self._signature.spec
        self._shared: SharedTools | None = None
        self._scope = ("", "")
        self._limit = options.limit

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.function, self.options)

    def join(self, shared: SharedTools, scope: str, settings: str) -> None:
        """Share permits and kept results with the same tool of other instances.

        Args:
            shared: the run's.
            scope: names the environment's class.
            settings: the environment's settings.
        """
        self._shared, self._scope = shared, (scope, settings)
        self._limit = shared.settings.limits.get(self.spec.name, self.options.limit)

    async def run(self, call: ToolCall) -> str:
        """Run one well-formed call and return its result as text.

        Raises:
            ToolInputError: the arguments do not fit, the tool refused them, or time ran out.
            ToolError: the tool itself is broken.
            EnvgymError: another error of this tree that the tool raised.
        """
        try:
            keywords = self._signature.keywords(call.arguments)
        except ArgumentError as error:
            raise ToolInputError(str(error)) from None
        if self._shared is None or not self.options.cache:
            return await self._run(keywords)
        key = (*self._scope, self.spec.name, _sorted_json(call.arguments))
        return await self._shared.kept(self.spec.name, key, functools.partial(self._run, keywords))

    async def _run(self, keywords: Mapping[str, Any]) -> str:
        if self._shared is None or self._limit is None:
            return await self._in_time(keywords)
        run = functools.partial(self._in_time, keywords)
        return await self._shared.limited(self._scope[0], self.spec.name, self._limit, run)

    async def _in_time(self, keywords: Mapping[str, Any]) -> str:
        name = self.spec.name
        try:
            if self._signature.asynchronous:
                code = self.function(**keywords)
            else:
                code = in_a_thread(functools.partial(self.function, **keywords), f"tool-{name}")
            result = await bounded(code, self.options.timeout, f"tool {name}")
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


def collect_tools(owner: object) -> dict[str, Tool]:
    """Return every method of ``owner`` that ``@tool`` marked, by name, in the order of definition."""
    return {name: Tool(getattr(owner, name), options) for name, options in _marked(type(owner)).items()}


_found: weakref.WeakKeyDictionary[type, dict[str, _Options]] = weakref.WeakKeyDictionary()


def _marked(kind: type) -> dict[str, _Options]:
    """Return the options of the marked methods of a class, looked for once."""
    if kind not in _found:
        names = [name for base in reversed(kind.__mro__) for name in vars(base)]
        marks = {name: getattr(inspect.getattr_static(kind, name, None), _MARK, None) for name in names}
        _found[kind] = {name: options for name, options in marks.items() if options is not None}
    return _found[kind]


async def run_calls(
    tools: Mapping[str, Tool], calls: Sequence[ToolCall]
) -> tuple[tuple[Message, ...], dict[str, float]]:
    """Answer every call of one message.

    Returns:
        one tool message per call, in order; and counts: ``tool_calls``, ``tool_errors``, ``tool_malformed``.

    Raises:
        EpisodeError: a tool, or the sandbox behind it, is broken. No call still runs when it is raised.
    """
    counts = {"tool_calls": float(len(calls)), "tool_errors": 0.0, "tool_malformed": 0.0}
    texts: list[str] = []
    for batch in [calls] if len(calls) == 1 else _batches(tools, calls):
        texts += (
            await _at_once(tools, batch, counts) if len(batch) > 1 else [await _answer(tools, batch[0], counts)]
        )
    answers = [
        Message(role="tool", content=text, tool_call_id=call.id) for text, call in zip(texts, calls, strict=True)
    ]
    return tuple(answers), counts


async def _at_once(tools: Mapping[str, Tool], batch: Sequence[ToolCall], counts: dict[str, float]) -> list[str]:
    pending = [asyncio.ensure_future(_answer(tools, call, counts)) for call in batch]
    try:
        return await asyncio.gather(*pending)
    finally:
        # A broken call ends the episode: its siblings must free what they hold before the error propagates.
        for task in pending:
            task.cancel()
        # Each is bounded, and comes to an end.
        await asyncio.wait(pending)


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


async def _answer(tools: Mapping[str, Tool], call: ToolCall, counts: dict[str, float]) -> str:
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


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    return text[:head] + _CUT.format(len(text) - limit) + text[len(text) - (limit - head) :]
