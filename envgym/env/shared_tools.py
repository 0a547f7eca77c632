"""What the tools of a run have in common: how often each may run at once, and results that are kept."""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Annotated, TypeVar

import pydantic

from envgym.config import Section

__all__ = ["ResultCache", "SharedTools", "ToolSettings"]

V = TypeVar("V")


class _PerLoop(weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, V]):
    """What cannot be used from two event loops, which may play episodes of one run."""

    def mine(self, make: Callable[[], V]) -> V:
        loop = asyncio.get_running_loop()
        if loop not in self:
            self[loop] = make()
        return self[loop]


class ToolSettings(Section):
    """Limits and cache of the environments' tools, over the whole run."""

    limits: dict[str, Annotated[int, pydantic.Field(ge=1)]] = pydantic.Field(
        default_factory=dict,
        description="calls of a tool at once, by the tool's name, instead of its author's limit; each environment "
        "class counts for itself",
        examples=[{"search": 8}],
    )
    cache_entries: int = pydantic.Field(
        default=10_000, ge=0, description="results kept of tools whose author allows it; 0 keeps none"
    )
    cache_bytes: int = pydantic.Field(
        default=64 * 2**20,
        ge=0,
        description="memory for them; the results that were asked for longest ago go first",
    )


class SharedTools:
    """Permits and results, shared by every instance of an environment's tools.

    Args:
        settings: the recipe's.
    """

    def __init__(self, settings: ToolSettings | None = None) -> None:
        self.settings = settings or ToolSettings()
        self.counts: Counter[str] = Counter()
        """``NAME/cached`` and ``NAME/run`` of cached tools; ``NAME/waited``: calls that waited for a permit."""
        self.results = ResultCache(self.settings.cache_entries, self.settings.cache_bytes)
        self._permits: _PerLoop[dict[Hashable, asyncio.Semaphore]] = _PerLoop()

    async def limited(self, scope: str, name: str, limit: int, run: Callable[[], Awaitable[str]]) -> str:
        """Return what ``run`` does, when fewer than ``limit`` calls of the tool are under way, in their order.

        Args:
            scope: names the environment's class.
            name: the tool's name.
            limit: calls at once.
            run: the call.
        """
        permits = self._permits.mine(dict).setdefault((scope, name, limit), asyncio.Semaphore(limit))
        self.counts[f"{name}/waited"] += permits.locked()
        async with permits:
            return await run()

    async def kept(self, name: str, key: Hashable, run: Callable[[], Awaitable[str]]) -> str:
        """Return the kept result of ``key``, or what ``run`` returns; equal calls at once run once.

        Only results are kept. Where a call raises, each of those that waited for it runs for itself.

        Args:
            name: the tool's name, to count by.
            key: settings, tool and arguments.
            run: the call.
        """
        text = await self.results.found(key)
        self.counts[f"{name}/{'run' if text is None else 'cached'}"] += 1
        return await self.results.of(key, run) if text is None else text


class ResultCache:
    """Texts by key, those asked for longest ago dropped first.

    Args:
        entries: texts at most.
        size: bytes of texts and keys at most.
    """

    def __init__(self, entries: int, size: int) -> None:
        self.bytes = 0
        """Bytes in use."""
        self._most, self._most_bytes = entries, size
        self._texts: OrderedDict[Hashable, tuple[str, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._running: _PerLoop[dict[Hashable, asyncio.Future[str | None]]] = _PerLoop()

    def __len__(self) -> int:
        return len(self._texts)

    async def found(self, key: Hashable) -> str | None:
        """Return the text of ``key``, awaiting a call that makes it; ``None`` if there is none, or it raised."""
        if not self._most:
            return None
        with self._lock:
            if key in self._texts:
                self._texts.move_to_end(key)
                return self._texts[key][0]
        running = self._running.mine(dict).get(key)
        # Who is cancelled while it waits must not cancel the others.
        return await asyncio.shield(running) if running is not None else None

    async def of(self, key: Hashable, run: Callable[[], Awaitable[str]]) -> str:
        """Return what ``run`` returns, and keep it under ``key``."""
        if not self._most:
            return await run()
        running = self._running.mine(dict)
        mine: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        running.setdefault(key, mine)
        text: str | None = None
        try:
            text = await run()
            self._keep(key, text)
            return text
        finally:
            if running.get(key) is mine:
                del running[key]
            mine.set_result(text)

    def _keep(self, key: Hashable, text: str) -> None:
        size = sys.getsizeof(text) + sum(map(sys.getsizeof, key if isinstance(key, tuple) else (key,)))
        with self._lock:
            if key in self._texts or size > self._most_bytes:
                return
            self._texts[key] = text, size
            self.bytes += size
            while len(self._texts) > self._most or self.bytes > self._most_bytes:
                _, (_, gone) = self._texts.popitem(last=False)
                self.bytes -= gone
