"""One server: requests for tokens, which are tried again, and requests that steer it, which are not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from envgym.web.redact import shown
from envgym.web.service import Answer, Refusal, Undecided, WebService
from envgym_trainers.engine.server.errors import ServerFailure, UnfitServer
from envgym_trainers.engine.server.wire import Wire, parsed

__all__ = ["Server"]

_PAUSE = 0.5
"""Seconds before the first retry of a request for tokens."""
_QUICK = 10.0
"""Seconds for an answer that takes no computation."""

T = TypeVar("T")
W = TypeVar("W", bound=Wire)
U = TypeVar("U", bound=UnfitServer)


class Server:
    """One replica. It may be used from one event loop at a time.

    Args:
        url: its base address; a ``/v1`` at the end is left out.
        generate: path of requests for tokens.
        start: the command that starts such a server for training, for messages.
        timeout: seconds for one request.
        key: sent as a bearer token; ``""`` for none.

    Raises:
        UserError: the address is not one of a server.
    """

    def __init__(self, url: str, *, generate: str, start: str, timeout: float, key: str = "") -> None:
        base = url.rstrip("/").removesuffix("/v1")
        self._web = WebService(
            base, says="no answer from", failure=ServerFailure, timeout=timeout, pause=_PAUSE, key=key
        )
        self._generate = generate
        self._start = start
        self.address = self._web.address.rstrip("/")
        """The address as messages show it."""
        self.conversations = 0
        """Number of open conversations."""
        self.model = ""
        """Name that it knows the model by."""
        self.adapter = ""
        """Name of the adapter that is sampled from; ``""`` for none."""
        self.label = ""
        """What it calls the weights that it was last known to have."""
        self.updating = False
        """True while it is handed weights, for which it pauses."""
        self.failure: ServerFailure | None = None
        """Reason why it is left alone until the next weights are published, if it is."""

    async def generate(self, body: Mapping[str, Any], read: Callable[[Answer], T]) -> T:
        """Return what ``read`` makes of the answer to a request for tokens.

        Raises:
            ServerFailure: no decided answer after all attempts.
            UnfitServer: the server refuses the request.
        """
        try:
            return await self._web.post(body, read, self._generate)
        except Refusal as refusal:
            raise self._refused("a request for tokens", refusal.status, refusal.text, fatal=True) from None

    async def get(self, path: str, form: type[W]) -> W:
        """Return an answer that takes no computation, as a ``form``; see ``post`` for errors."""
        try:
            answer = self._checked(path, await self._quickly(path))
            return parsed(form, answer.json())
        except Undecided as undecided:
            raise self.failed(f"{path}: {undecided}") from None

    async def status_of(self, path: str) -> int:
        """Return the HTTP status of an answer that takes no computation, whatever it is.

        Raises:
            ServerFailure: no answer.
        """
        return (await self._quickly(path)).status

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        """Make a request that steers the server, once.

        Raises:
            ServerFailure: no answer, or one that tells of a failure.
            UnfitServer: the server does not offer it, or not to us.
        """
        self._checked(path, await self._web.once("POST", path, body))

    def failed(self, problem: str, advice: str = "") -> ServerFailure:
        """Return an error that names the server, with every secret left out."""
        return ServerFailure(f"{self.address}: {shown(self._web.redacted(problem))}{advice}")

    def unfit(self, problem: str, advice: str = "") -> UnfitServer:
        """Return an error that names the server and, where ``advice`` says no better, how to start it."""
        return self.unfit_as(UnfitServer, problem, advice or f"start it with: {self._start}")

    def unfit_as(self, kind: type[U], problem: str, advice: str) -> U:
        """Return an error of one kind that names the server."""
        return kind(self.address, shown(self._web.redacted(problem)), advice)

    async def close(self) -> None:
        """Close the connections of this event loop. Safe to call twice."""
        await self._web.close()

    async def _quickly(self, path: str) -> Answer:
        try:
            async with asyncio.timeout(_QUICK):
                return await self._web.once("GET", path)
        except TimeoutError:
            raise self.failed(f"{path}: no answer within {_QUICK:g} s") from None

    def _checked(self, path: str, answer: Answer) -> Answer:
        if not 200 <= answer.status < 300:
            raise self._refused(path.partition("?")[0], answer.status, answer.text, fatal=False)
        return answer

    def _refused(self, what: str, status: int, text: str, *, fatal: bool) -> ServerFailure | UnfitServer:
        problem = f"{what} is refused: HTTP {status}: {_words(text)}"
        if status == 401:
            return self.unfit(problem, "set the variable that engine.key_env names to a key that it accepts")
        # An unknown path has no words of the server's own; 403 is how vLLM closes one.
        closed = status in (403, 405, 501) or (status == 404 and "error" not in text)
        return self.unfit(problem) if closed or fatal else self.failed(problem)


def _words(text: str) -> str:
    """Return the message in an error's body, or all of it."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for name in ("error", "message", "error_message", "detail"):
        if isinstance(found, dict) and isinstance(found.get(name), str | dict):
            found = found[name]
    return found if isinstance(found, str) else text
