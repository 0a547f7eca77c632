"""What a server can and cannot do for training, found out without a model and without changing anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from envgym.errors import EnvgymError
from envgym.web.redact import shown
from envgym_trainers.engine.interface import SamplingParams
from envgym_trainers.engine.server.connection import Server
from envgym_trainers.engine.server.dialect import Dialect, ServerStatus, TokenReply, TokenRequest
from envgym_trainers.engine.server.engine import ServerEngine, key_in
from envgym_trainers.engine.server.errors import ServerFailure, UnfitServer
from envgym_trainers.engine.server.labels import is_abandoned, is_published
from envgym_trainers.engine.server.sglang import SGLangEngine
from envgym_trainers.engine.server.vllm import VllmEngine

__all__ = ["Finding", "examine"]

_ENGINES: Sequence[type[ServerEngine]] = (VllmEngine, SGLangEngine)
_TIMEOUT = 30.0
_PROMPTS = 8
_SURE = -0.02
"""A log-prob above this is the same at any temperature, as far as rounding goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the table."""

    what: str
    works: bool
    found: str
    remedy: str = ""
    needed: bool = True
    """False if a recipe can train without it."""


async def examine(url: str, key_env: str) -> list[Finding]:
    """Examine the server at ``url``.

    Args:
        url: base address.
        key_env: variable that holds the key, if the server wants one.

    Raises:
        UserError: the address is not one of a server, or no header can hold the key.
    """
    for engine in _ENGINES:
        dialect = engine.dialect
        server = Server(url, generate=dialect.generate, start=dialect.start, timeout=_TIMEOUT, key=key_in(key_env))
        try:
            if version := await dialect.version(server):
                found = [Finding(what="server", works=True, found=f"{dialect.name} {version}")]
                found += [finding async for finding in _examined(dialect, server)]
                return found
        finally:
            await server.close()
    return [await _stranger(url, key_env)]


async def _stranger(url: str, key_env: str) -> Finding:
    server = Server(url, generate="", start="", timeout=_TIMEOUT, key=key_in(key_env))
    names = " or ".join(engine.dialect.name for engine in _ENGINES)
    remedy = f"train against {names}, started with: {_ENGINES[0].dialect.start}"
    try:
        status = await server.status_of("/v1/models")
    except ServerFailure as failure:
        return Finding(what="server", works=False, found=str(failure), remedy="start it, or mend the address")
    finally:
        await server.close()
    if status == 401:
        return Finding(what="key", works=False, found="it wants a key", remedy=f"put it into {key_env}")
    found = f"neither {names.replace(' or ', ' nor ')}: such a server may play and judge, not train"
    return Finding(what="server", works=False, found=found, remedy=remedy)


async def _examined(dialect: Dialect, server: Server) -> AsyncIterator[Finding]:
    status: ServerStatus | None = None
    try:
        status = await dialect.status(server)
    except EnvgymError as error:
        yield _broken("state", error)
    if status is not None:
        server.model = status.models[0]
        for finding in _of_status(dialect, status):
            yield finding
    if status is None or not (status.asleep or status.paused):
        async for finding in _of_tokens(dialect, server):
            yield finding
    try:
        ways = await dialect.ways(server)
    except EnvgymError as error:
        yield _broken("configuration", error)
        return
    either = not (ways.disk and ways.lora)
    for what, problem in (("all weights", ways.disk), ("adapters", ways.lora)):
        found = "it takes them" if not problem else "it does not take them"
        yield Finding(what=what, works=not problem, found=found, remedy=problem, needed=not either)
    for what, text in ways.notes.items():
        yield Finding(what=what, works=True, found=text, needed=False)


def _broken(what: str, error: EnvgymError) -> Finding:
    if isinstance(error, UnfitServer):
        return Finding(what=what, works=False, found=error.problem, remedy=error.remedy)
    return Finding(what=what, works=False, found=str(error), remedy="see what it says for itself, in its log")


def _of_status(dialect: Dialect, status: ServerStatus) -> list[Finding]:
    context = "it does not say" if status.context is None else f"{status.context:,} tokens"
    taken = is_published(status.label) and not is_abandoned(status.label)
    waits = "asleep" if status.asleep else "paused" if status.paused else ""
    return [
        Finding(what="model", works=True, found=shown(", ".join(status.models[:5]))),
        Finding(what="context", works=True, found=context),
        Finding(
            what="weights",
            works=not taken,
            found=shown(f"called {status.label!r}") + (", by a trainer that may be alive" if taken else ""),
            remedy="end that one, or set engine.take_over = true if it is dead" if taken else "",
        ),
        Finding(
            what="awake",
            works=not waits,
            found=waits or "yes",
            remedy="POST /wake_up" if status.asleep else dialect.resume if waits else "",
        ),
    ]


async def _of_tokens(dialect: Dialect, server: Server) -> AsyncIterator[Finding]:
    """Sample a token greedily and at a low temperature: log-probs of what was sampled differ."""
    raw: bool | None = None
    try:
        for first in range(_PROMPTS):
            greedy, sharp = [await _token(dialect, server, first + 3, t) for t in (0.0, 0.5)]
            if greedy.ids == sharp.ids and greedy.logprobs[0] < _SURE:
                raw = abs(greedy.logprobs[0] - sharp.logprobs[0]) < abs(greedy.logprobs[0]) / 10
                break
    except (UnfitServer, ServerFailure) as error:
        yield _broken("tokens", error)
        return
    yield Finding(what="tokens", works=True, found="ids in and out, with log-probs and the version of the weights")
    told = {None: "not told apart by these prompts", True: "before temperature", False: "of what is sampled from"}
    remedy = dialect.start if raw else ""
    yield Finding(what="log-probs", works=not raw, found=told[raw], remedy=remedy)


async def _token(dialect: Dialect, server: Server, first: int, temperature: float) -> TokenReply:
    params = SamplingParams(max_tokens=1, temperature=temperature)
    ask = TokenRequest(
        ids=[first, first + 1, first + 2],
        params=params,
        seed=0,
        stop_ids=(),
        model=server.model,
        adapter="",
        label="envgym:doctor",
    )
    return await server.generate(dialect.body(ask), lambda answer: dialect.read(server, answer))
