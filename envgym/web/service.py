"""A server that answers requests of JSON, with one rule for what is an answer.

Whatever is not a decided answer is tried again, with growing pauses or after the wait that the server asks for, as
long as the episode has time; then it is missing data. What the server refuses for good is missing data at once.
"""

from __future__ import annotations

import asyncio
import json
import random
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from envgym.errors import EpisodeError, UserError
from envgym.web.body import CutBody, LargeBody, read_body
from envgym.web.clients import Clients
from envgym.web.deadline import seconds_left
from envgym.web.redact import redacted, secrets_of, shown
from envgym.web.retry_after import retry_after

__all__ = ["Answer", "Refusal", "Undecided", "WebService"]

_ATTEMPTS = 6
_UNREACHED_ATTEMPTS = 4
"""Attempts where nobody has ever answered: rather a wrong address than an outage."""
_SLOW_ATTEMPTS = 2
"""Attempts that may use up the whole time of a request."""
_RETRIED = frozenset({408, 409, 425, 429})
_HOPELESS = ("insufficient_quota", "billing_hard_limit_reached")
"""Codes of a 429 that no wait mends."""
_LONGEST_PAUSE = 8.0
_LONGEST_WAIT = 600.0
"""Longest wait that a server is granted, in seconds, where no deadline says less."""
_jitter = random.Random()

T = TypeVar("T")


class Undecided(Exception):
    """The server did not decide; another attempt may bring an answer.

    Args:
        problem: what came instead.
        wait: seconds that the server asks for.
    """

    def __init__(self, problem: str, wait: float | None = None) -> None:
        super().__init__(problem)
        self.wait = wait


class _Slow(Undecided):
    """The time of a request is used up."""


class _Unreached(Undecided):
    """There was no connection."""


class Refusal(Exception):
    """The server refuses the request as it is: no retry helps.

    Args:
        status: HTTP status.
        text: body.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer of a server, of any status."""

    status: int
    text: str
    wait: float | None = None
    """Seconds that the server asks for before the next attempt."""

    def check(self) -> None:
        """Check that the status is one of success and that there is something to read.

        Raises:
            Undecided: another attempt may bring an answer.
            Refusal: no other attempt will.
        """
        hopeless = self.status == 429 and any(code in self.text for code in _HOPELESS)
        if (self.status in _RETRIED or self.status >= 500) and not hopeless:
            raise Undecided(f"HTTP {self.status}: {self.text}", self.wait)
        if not 200 <= self.status < 300:
            raise Refusal(self.status, self.text)
        if not self.text.strip():
            raise Undecided(f"HTTP {self.status} with an empty body")

    def json(self) -> Any:
        """Return the decoded body.

        Raises:
            Undecided: it is no JSON: a page of a gateway, or a text that is cut.
        """
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as error:
            page = " (an HTML page)" if self.text.lstrip()[:1] == "<" else ""
            raise Undecided(f"not JSON{page}: {error!s:.80}: {self.text}") from None


class WebService:
    """Posts JSON to one address. It may be used from several event loops, one after the other or at once.

    Args:
        url: the address; a user and password in it, or keys in its query, appear in no message.
        path: continues the path of ``url``.
        says: begins the message of a failure, before the address.
        failure: error that an outage raises.
        timeout: seconds for one request and its whole answer, however slowly it trickles in.
        pause: seconds before the first retry; each further one waits twice as long, give or take a half.
        key: sent as a bearer token; ``""`` for none.

    Raises:
        UserError: the address is not one of a server.
    """

    def __init__(
        self,
        url: str,
        *,
        path: str = "",
        says: str,
        failure: type[EpisodeError],
        timeout: float,
        pause: float,
        key: str = "",
    ) -> None:
        self._url = _address(url, path)
        self.address = str(self._url.copy_with(userinfo=b"", query=None, fragment=None))
        """The address as messages show it."""
        self._says = says
        self._failure = failure
        self._timeout = timeout
        self._pause = pause
        self._secrets = (key, *secrets_of(self._url)) if key else secrets_of(self._url)
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Clients]
        self._clients = weakref.WeakKeyDictionary()
        self._closers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncGenerator[None, None]]
        self._closers = weakref.WeakKeyDictionary()
        self._reached = False

    async def close(self) -> None:
        """Close this event loop's connections; another loop closes its own when it ends. Safe to call twice."""
        loop = asyncio.get_running_loop()
        self._clients.pop(loop, None)
        closer = self._closers.pop(loop, None)
        if closer is not None:
            await closer.aclose()

    async def post(self, body: Mapping[str, Any], read: Callable[[Answer], T], path: str = "") -> T:
        """Return what ``read`` makes of the answer to ``body``.

        Args:
            body: sent as JSON.
            read: reads an answer of any status; what it raises other than ``Undecided`` ends the request.
            path: continues the path of the address.

        Raises:
            Refusal: the server refuses the request; see ``failed``.
            EpisodeError: of the kind ``failure``: no decided answer after all attempts.
        """
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        url = _continued(self._url, path) if path else self._url
        slow = 0
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return read(await self._once("POST", url, content))
            except Undecided as undecided:
                slow += isinstance(undecided, _Slow)
                unreached = isinstance(undecided, _Unreached) and not self._reached
                wait = self._wait(attempt, undecided.wait)
                late = wait >= min(seconds_left(), _LONGEST_WAIT)
                last = attempt >= (_UNREACHED_ATTEMPTS if unreached else _ATTEMPTS) or slow >= _SLOW_ATTEMPTS
                if late or last:
                    asks = f" (it asks to wait for {undecided.wait:g} s)" if late and undecided.wait else ""
                    raise self.failed(str(undecided), asks) from None
            await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def once(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Return the answer to a request below the address, of any status; nothing is tried again.

        Args:
            method: of HTTP.
            path: continues the path of the address; it may end in a query.
            body: sent as JSON; none if left out.

        Raises:
            EpisodeError: of the kind ``failure``: no whole answer.
        """
        content = b"" if body is None else json.dumps(body).encode()
        try:
            return await self._once(method, _continued(self._url, path), content)
        except Undecided as undecided:
            raise self.failed(f"{path}: {undecided}") from None

    def failed(self, problem: str, advice: str = "") -> EpisodeError:
        """Return the error of an outage or of a refusal, with every secret left out."""
        return self._failure(f"{self._says} {self.address}: {shown(problem, self._secrets)}{advice}")

    def redacted(self, text: str) -> str:
        """Return ``text`` without the key, the password, and what else is secret in the address."""
        return redacted(text, self._secrets)

    def _wait(self, attempt: int, asked: float | None) -> float:
        pause = min(self._pause * 2.0 ** (attempt - 1), _LONGEST_PAUSE)
        # With jitter, so that not all come back at once.
        return max(pause * _jitter.uniform(0.5, 1.5), (asked or 0.0) + pause * _jitter.uniform(0.0, 0.5))

    async def _once(self, method: str, url: httpx.URL, content: bytes) -> Answer:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._send(method, url, content)
        except TimeoutError:
            raise _Slow(f"no whole answer within {self._timeout:g} s") from None
        except httpx.ConnectError as error:
            raise _Unreached(f"ConnectError: {error}") from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Undecided(f"{type(error).__name__}: {error}") from None
        except CutBody as error:
            raise Undecided(f"{error}") from None
        except LargeBody as error:
            raise self.failed(f"{error}") from None

    async def _send(self, method: str, url: httpx.URL, content: bytes) -> Answer:
        clients = await self._of_this_loop()
        headers = {"Content-Type": "application/json"} if content else {}
        with clients.with_room() as client:
            async with client.stream(method, url, content=content, headers=headers) as response:
                self._reached = True
                text = await read_body(response)
                if response.is_redirect:
                    text = f"moved to {response.headers.get('location', '')}; {text}"
                return Answer(status=response.status_code, text=text, wait=retry_after(response.headers))

    async def _of_this_loop(self) -> Clients:
        """Return this event loop's clients."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = clients = Clients(self._headers)
            self._closers[loop] = closer = _closer(clients)
            await anext(closer)
        return self._clients[loop]


async def _closer(clients: Clients) -> AsyncGenerator[None, None]:
    """Close ``clients`` when their event loop ends, which closes the generators that were begun in it."""
    try:
        yield
    finally:
        await clients.aclose()


def _address(url: str, path: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UserError(f"no server can have the address {redacted(url)!r:.200}: {error}") from None
    if address.scheme not in ("http", "https") or not address.host:
        raise UserError(f"a server's address reads http://HOST:PORT/v1, got {redacted(url)!r:.200}")
    if not path or address.path.rstrip("/").endswith(path):
        return address.copy_with(fragment=None)
    return _continued(address, path)


def _continued(address: httpx.URL, path: str) -> httpx.URL:
    path, _, query = path.partition("?")
    longer = address.copy_with(path=address.path.rstrip("/") + path, fragment=None)
    return longer.copy_merge_params(httpx.QueryParams(query)) if query else longer
