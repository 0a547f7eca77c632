"""The one rule for outages, against a real server that does everything wrong."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from envgym.errors import EpisodeError, ToolError, UserError
from envgym.web import body as body_module
from envgym.web.deadline import bounded_by
from envgym.web.service import Answer, Refusal, WebService

FINE = {"fine": True}


def read(answer: Answer) -> Any:
    answer.check()
    return answer.json()


def service_of(server: Any, **settings: Any) -> WebService:
    options = {"says": "toy", "failure": ToolError, "timeout": 60.0, "pause": 0.01, **settings}
    return WebService(options.pop("url", server.url), **options)


@pytest.fixture
def post(web_server: Any) -> Callable[..., Any]:
    """``await post(answer, …)``: what comes of one request; the answers after the last are fine."""

    async def once(*answers: Any, **settings: Any) -> Any:
        fine = web_server.reply(FINE)
        before = len(web_server.bodies)
        web_server.answer = lambda body, n: answers[n - before - 1] if n - before <= len(answers) else fine
        service = service_of(web_server, **settings)
        try:
            return await service.post({"q": 1}, read)
        finally:
            await service.close()

    return once


TRANSIENT = {
    "a reset": [b""],
    "half a status line": b"HTTP/1.1 2",
    "no HTTP": b"220 smtp ready\r\n\r\n",
    "a body that is cut": b'HTTP/1.1 200 X\r\ncontent-length: 90\r\n\r\n{"fine": tr',
    "a chunk that is cut": b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n40\r\n{",
    "an empty body": b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n",
    "blanks": b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n \n",
    "no content": b"HTTP/1.1 204 X\r\n\r\n",
    "a page": b"HTTP/1.1 200 X\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>",
    "JSON that is cut": b'HTTP/1.1 200 X\r\ncontent-length: 8\r\n\r\n{"fine":',
    "deep JSON": b"HTTP/1.1 200 X\r\ncontent-length: 100000\r\n\r\n" + b"[" * 100_000,
    "no gzip": b"HTTP/1.1 200 X\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nabcd",
    "an unknown encoding": b"HTTP/1.1 200 X\r\ncontent-encoding: br\r\ncontent-length: 4\r\n\r\nabcd",
    **{
        str(status): f"HTTP/1.1 {status} X\r\ncontent-length: 1\r\n\r\nx".encode()
        for status in (408, 409, 425, 429, 500, 502, 503, 504, 520, 529, 599)
    },
}


@pytest.mark.parametrize("answer", TRANSIENT.values(), ids=TRANSIENT)
async def test_whatever_is_no_decided_answer_is_tried_again(post: Any, web_server: Any, answer: Any) -> None:
    assert await post(answer, answer) == FINE
    assert len(web_server.bodies) == 3
    assert all(body == {"q": 1} for body in web_server.bodies)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 402, 403, 404, 410, 422, 451])
async def test_a_refusal_is_one_at_once(post: Any, web_server: Any, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        await post(web_server.reply({"error": "no"}, status, location="/elsewhere"))
    assert caught.value.status == status
    assert len(web_server.bodies) == 1


async def test_an_empty_purse_is_not_waited_for(post: Any, web_server: Any) -> None:
    with pytest.raises(Refusal, match="insufficient_quota"):
        await post(web_server.reply({"error": {"code": "insufficient_quota"}}, 429))


async def test_an_outage_is_a_failure_in_one_printable_line(post: Any, web_server: Any) -> None:
    page = web_server.reply(b"<html>\x1b[2J\n" + b"down " * 1000, 503)
    with pytest.raises(ToolError, match=r"^toy http://127\.0\.0\.1:\d+: HTTP 503: <html> \[2J down ") as caught:
        await post(*[page] * 99)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    assert 1 < len(web_server.bodies) < 12


async def test_the_wait_that_is_asked_for_is_kept(post: Any, web_server: Any) -> None:
    times: list[float] = []
    web_server.heads = type("", (list,), {"append": lambda self, head: times.append(time.monotonic())})()
    busy = web_server.reply({}, 429, retry_after="0.4")
    assert await post(busy, web_server.reply({}, 503, retry_after_ms="300")) == FINE
    assert times[1] - times[0] >= 0.4
    assert times[2] - times[1] >= 0.3


async def test_a_wait_beyond_the_deadline_is_a_failure_at_once(post: Any, web_server: Any) -> None:
    busy, started = web_server.reply({}, 429, retry_after="60"), time.monotonic()
    with bounded_by(lambda: 30.0), pytest.raises(ToolError, match=r"HTTP 429.* \(it asks to wait for 60 s\)"):
        await post(busy)
    with pytest.raises(ToolError, match="asks to wait for 86400 s"):
        await post(web_server.reply({}, 503, retry_after="86400"))
    assert time.monotonic() - started < 50
    assert len(web_server.bodies) == 2


async def test_a_trickle_does_not_stretch_the_time_of_a_request(post: Any, web_server: Any) -> None:
    head = b"HTTP/1.1 200 X\r\ncontent-length: 10000\r\n\r\n"
    trickle = [head, *[b" ", 0.05] * 1000]
    started = time.monotonic()
    with pytest.raises(ToolError, match="no whole answer within 0.3 s"):
        await post(trickle, trickle, trickle, trickle, timeout=0.3)
    assert time.monotonic() - started < 40, "it would take 50 seconds to trickle in"
    assert len(web_server.bodies) <= 2, "a request that takes all its time is not made six times"
    slow_head = [*[b"H", 0.05] * 1000]
    with pytest.raises(ToolError, match="no whole answer"):
        await post(slow_head, slow_head, timeout=0.3)


@pytest.mark.parametrize("layers", ["gzip", "deflate"])
async def test_one_layer_of_compression_is_read(post: Any, web_server: Any, layers: str) -> None:
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}[layers](json.dumps({"a": "b" * 9999}).encode())
    assert await post(web_server.reply(packed, content_encoding=layers)) == {"a": "b" * 9999}
    assert "accept-encoding: identity" in web_server.heads[0].lower()
    assert await post(web_server.reply(packed[:-9], content_encoding=layers)) == FINE, "cut, so asked again"


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip"])
async def test_a_bomb_costs_little_memory(
    post: Any, web_server: Any, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr(body_module, "MAX_BODY", 100_000)
    bomb = gzip.compress(b" " * 50_000_000)
    bomb = gzip.compress(bomb) if "," in encoding else bomb
    tracemalloc.start()
    try:
        with pytest.raises(ToolError, match="larger than 100000 bytes|encoded as 'gzip, gzip'"):
            await post(*[web_server.reply(bomb, content_encoding=encoding)] * 9)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


async def test_an_endless_answer_is_not_read_to_its_end(
    post: Any, web_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_module, "MAX_BODY", 1000)
    with pytest.raises(ToolError, match="larger than 1000 bytes"):
        await post([b"HTTP/1.1 200 X\r\n\r\n", *[b"x" * 100] * 1000])


@pytest.mark.parametrize("place", ["key", "password", "query"])
@pytest.mark.parametrize("pad", [0, 270, 290])
async def test_no_secret_is_told(web_server: Any, place: str, pad: int) -> None:
    """Wherever the server repeats it, also across the place where the text is cut."""
    secret = "geheim/0123456789abcdefgh"
    url = {
        "key": web_server.url,
        "password": web_server.url.replace("//", "//me:geheim%2F0123456789abcdefgh@"),
        "query": web_server.url + "/v1?api_key=geheim%2F0123456789abcdefgh",
    }[place]
    service = service_of(web_server, url=url, key=secret if place == "key" else "", path="/chat")
    web_server.answer = lambda body, n: web_server.reply(("x" * pad + secret).encode(), 400)
    with pytest.raises(Refusal) as refused:
        await service.post({}, read)
    await service.close()
    assert "geheim" not in str(service.failed(str(refused.value)))
    assert "geheim" not in service.address
    assert place != "query" or "/v1/chat?api_key=geheim" in web_server.heads[0]


async def test_there_are_as_many_requests_under_way_as_are_made(
    web_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None waits for a connection of the pool, at the cost of its own time, and no client has many of them."""
    made: list[httpx.AsyncClient] = []
    stream = httpx.AsyncClient.stream

    def count(self: httpx.AsyncClient, *args: Any, **options: Any) -> Any:
        made.append(self)
        return stream(self, *args, **options)

    monkeypatch.setattr(httpx.AsyncClient, "stream", count)
    everyone = asyncio.Event()
    under_way = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way
        await reader.readuntil(b"{}")
        under_way += 1
        if under_way == 200:
            everyone.set()
        await everyone.wait()
        writer.write(web_server.reply(FINE))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000) as server:
        port = server.sockets[0].getsockname()[1]
        service = service_of(web_server, url=f"http://127.0.0.1:{port}", timeout=60.0)
        assert await asyncio.gather(*(service.post({}, read) for _ in range(200))) == [FINE] * 200
        await service.close()
    assert max(map(made.count, made)) == 16


def test_one_service_in_one_event_loop_after_the_other(web_server: Any) -> None:
    """A connection that a loop kept alive is not used by the next one, and is closed with its own."""
    web_server.keeps = True
    web_server.answer = lambda body, n: web_server.reply(FINE)
    service = service_of(web_server)

    async def twice() -> None:
        assert await service.post({}, read) == FINE
        assert await service.post({}, read) == FINE

    for _ in range(3):
        asyncio.run(twice())
    assert (len(web_server.bodies), web_server.connections) == (6, 3)


def test_one_service_in_several_event_loops_at_once(web_server: Any) -> None:
    web_server.keeps = True
    web_server.answer = lambda body, n: web_server.reply(FINE)
    service = service_of(web_server)

    async def often() -> list[Any]:
        return [await service.post({}, read) for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: asyncio.run(often()), range(4))) == [[FINE] * 5] * 4
    assert len(web_server.bodies) == 20


def test_a_service_goes_on_after_a_loop_that_was_broken_off(web_server: Any) -> None:
    """The loop ends with a request under way: neither its connection nor its lock outlives it."""
    web_server.keeps = True
    web_server.answer = lambda body, n: [30.0] if n == 1 else web_server.reply(FINE)
    service = service_of(web_server)

    async def broken_off() -> None:
        asking = asyncio.create_task(service.post({}, read))
        while not web_server.bodies:  # noqa: ASYNC110 - it lives in another thread
            await asyncio.sleep(0.01)
        asking.cancel()

    async def whole() -> None:
        assert await service.post({}, read) == FINE
        await service.close()

    asyncio.run(broken_off())
    asyncio.run(whole())


async def test_a_server_that_never_answered_is_given_up_sooner() -> None:
    service = WebService("http://127.0.0.1:1", says="toy", failure=ToolError, timeout=60, pause=0.0)
    with pytest.raises(ToolError, match="ConnectError"):
        await service.post({}, read)
    await service.close()
    await service.close()


async def test_text_that_utf8_cannot_hold_is_sent_all_the_same(web_server: Any) -> None:
    web_server.answer = lambda body, n: web_server.reply(FINE)
    service = service_of(web_server)
    await service.post({"text": "a\ud800ü"}, read)
    await service.close()
    assert web_server.bodies == [{"text": "a?ü"}]


@pytest.mark.parametrize("url", ["", "x", "http://", "ftp://h/v1", "http://h:port/", "http://me:geheim@", "\x00"])
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UserError, match="address") as caught:
        WebService(url, says="", failure=EpisodeError, timeout=1, pause=0)
    assert "geheim" not in str(caught.value)


async def test_a_path_continues_the_address_and_keeps_its_query(web_server: Any) -> None:
    service = service_of(web_server, url=f"{web_server.url}/below?api_key=sesame", path="/first")
    web_server.answer = lambda body, n: web_server.reply(FINE)
    try:
        for path in ("", "/second"):
            await service.post({}, read, path)
        answer = await service.once("POST", "/third?mode=keep", {"q": 1})
    finally:
        await service.close()
    assert answer.json() == FINE
    asked = [head.split()[1] for head in web_server.heads]
    assert asked == [
        "/below/first?api_key=sesame",
        "/below/first/second?api_key=sesame",
        "/below/first/third?api_key=sesame&mode=keep",
    ]


@pytest.mark.parametrize("status", [200, 404, 429, 503])
async def test_what_is_asked_once_is_answered_whatever_the_status_is(web_server: Any, status: int) -> None:
    web_server.answer = lambda body, n: web_server.reply(FINE, status)
    service = service_of(web_server)
    try:
        assert (await service.once("POST", "/steer", {})).status == status
    finally:
        await service.close()
    assert len(web_server.bodies) == 1


async def test_what_is_asked_once_is_a_failure_without_an_answer(web_server: Any) -> None:
    """Nothing is tried again: the request may have had its effect."""
    web_server.answer = lambda body, n: [b""]
    service = service_of(web_server)
    try:
        with pytest.raises(ToolError, match=f"{web_server.url}.*/steer"):
            await service.once("POST", "/steer", {})
    finally:
        await service.close()
    assert len(web_server.bodies) == 1
