"""The trainer's weights on the servers: handed over together, and compared after every time."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from envgym.errors import EnvgymError, UserError
from envgym_trainers.engine.checks import check_shapes
from envgym_trainers.engine.server.comparison import PROBE, LogprobComparison, compare, probe_ids
from envgym_trainers.engine.server.connection import Server
from envgym_trainers.engine.server.dialect import Dialect, ServerStatus, TokenRequest
from envgym_trainers.engine.server.errors import OtherModel, OtherTrainer, OtherWeights, ServerFailure
from envgym_trainers.engine.server.labels import RELEASED, Labels, is_abandoned, is_published
from envgym_trainers.engine.server.sampler import Sampler
from envgym_trainers.engine.server.weights import shapes_of, write_adapter
from envgym_trainers.models.language_model import LanguageModel

__all__ = ["Publisher"]


class Publisher:
    """Hands weights to all servers, and compares the log-probs of each with the trainer's.

    Args:
        dialect: of the servers.
        sampler: asks for the sequence that is compared.
        language_model: the model that the engine was made with.
        labels: of the weights.
        folder: for the files that servers read; an empty one.
        adapters: publish adapters instead of all weights.
        tolerance: largest mean difference of log-probs, in nats.
        take_over: publish even where another trainer may be alive.
        model: name to ask for; ``""`` is the server's own.
    """

    def __init__(
        self,
        dialect: Dialect,
        sampler: Sampler,
        language_model: LanguageModel,
        labels: Labels,
        *,
        folder: Path,
        adapters: bool,
        tolerance: float,
        take_over: bool,
        model: str,
    ) -> None:
        self._dialect = dialect
        self._sampler = sampler
        self._language_model = language_model
        self._labels = labels
        self._folder = folder
        self._adapters = adapters
        self._tolerance = tolerance
        self._take_over = take_over
        self._model = model
        self._shapes = shapes_of(language_model)
        self._last: Path | None = None
        self.prompt = probe_ids(language_model, seed=0)
        """What the sequence that is compared begins with."""

    def check(self, language_model: LanguageModel) -> None:
        """Refuse the weights of another model.

        Raises:
            UserError: names or shapes differ, or there is no adapter to publish.
        """
        check_shapes(shapes_of(language_model), self._shapes)
        if self._adapters and not hasattr(language_model.model, "peft_config"):
            raise UserError('engine.publish = "lora" needs a model with adapters: set model.lora_rank')

    async def begin(self, servers: Sequence[Server], version: int) -> None:
        """See that every server runs the trainer's model with the trainer's weights.

        Servers that an earlier trainer left with its weights are given the first ones again.

        Raises:
            UnfitServer: one does not, or is not there.
        """
        self.check(self._language_model)
        left = [s for s, own in zip(servers, await _all(map(self._is_left, servers)), strict=True) if own]
        await _all(self._adopt(server, version) for server in servers if server not in left)
        if left:
            await self.publish(left, self._language_model, version)

    async def release(self, server: Server) -> None:
        """Let whoever comes next publish to a server that has this engine's weights.

        Raises:
            ServerFailure: it is not there.
            UnfitServer: it refuses.
        """
        if server.label and (await self._dialect.status(server)).label == server.label:
            await self._dialect.rename(server, RELEASED)

    async def publish(self, servers: Sequence[Server], language_model: LanguageModel, version: int) -> None:
        """Hand over weights, and compare.

        Raises:
            UserError: see ``check``.
            ServerFailure: a server is not there, or did not take them.
            UnfitServer: a server cannot take weights, or reports other log-probs than the trainer.
        """
        self.check(language_model)
        label = self._labels.of(version)
        place = self._folder / f"version-{version}"
        writing = asyncio.to_thread(
            write_adapter if self._adapters else self._dialect.write, language_model, place
        )
        weights = await writing
        await _all(self._hand_over(server, weights, label) for server in servers)
        if self._last is not None and self._last != weights:
            await asyncio.to_thread(_remove, self._last)
        self._last = weights
        await _all(self._compare(server, language_model, label) for server in servers)

    async def _is_left(self, server: Server) -> bool:
        """Return whether a server needs the first weights, because somebody left others in it."""
        try:
            status = await self._examined(server)
        except ServerFailure as failure:
            raise server.unfit(f"it is not there: {failure}") from None
        left = is_published(status.label) or self._adapters
        if status.paused and not left:
            raise server.unfit("it is paused, and lets requests wait", self._dialect.resume)
        return left

    async def _examined(self, server: Server) -> ServerStatus:
        """Return the status of a server that runs a model of this name and context, for no other trainer."""
        status = await self._dialect.status(server)
        context = self._language_model.context
        server.model = self._model or status.models[0]
        if server.model not in status.models:
            problem = f"it has no model {server.model!r}, but {', '.join(status.models[:5])}"
            raise server.unfit_as(OtherModel, problem, "name one of them in engine.model")
        if status.context is not None and status.context < context:
            raise server.unfit_as(
                OtherModel,
                f"its context has {status.context} tokens, and model.context is {context}",
                f"start it with a context of {context}, or lower model.context",
            )
        self._check_owner(server, status)
        return status

    def _check_owner(self, server: Server, status: ServerStatus) -> None:
        """Refuse a server that is asleep, or that another trainer uses."""
        if status.asleep:
            raise server.unfit("it is asleep, and lets requests wait", "wake it: POST /wake_up")
        own = self._labels.version(status.label) is not None
        if own or not is_published(status.label) or is_abandoned(status.label) or self._take_over:
            return
        raise server.unfit_as(
            OtherTrainer,
            f"another trainer publishes weights to it, which it calls {status.label!r}",
            "give each trainer servers of its own, or, if that one is dead, set engine.take_over = true",
        )

    async def _adopt(self, server: Server, version: int) -> None:
        """Compare the weights that a server was started with, and call them the first version."""
        label = self._labels.of(version)
        await self._compare(server, self._language_model, label)
        await self._dialect.rename(server, label)
        server.label = label

    async def _hand_over(self, server: Server, weights: Path, label: str) -> None:
        status = await self._examined(server)
        server.updating = True
        try:
            if not self._adapters:
                await self._dialect.load(server, weights, label)
            else:
                await self._dialect.load_adapter(server, weights, label)
                old, server.adapter = server.adapter, label
                if old in status.models:
                    await self._dialect.unload_adapter(server, old)
        except ServerFailure as failure:
            server.failure = ServerFailure(
                f"weights were not handed over: {failure}; it may hold a part of them: see that it can read "
                f"{weights} (engine.folder) and is not restarting; a run that is resumed hands them over anew"
            )
            raise server.failure from None
        finally:
            server.updating = False
        server.label, server.failure = label, None

    async def _compare(self, server: Server, language_model: LanguageModel, label: str) -> None:
        """Sample one sequence, and recompute it.

        Raises:
            OtherWeights: the log-probs differ.
        """
        prompt = self.prompt[: max(1, language_model.context - PROBE.max_tokens)]
        ask = TokenRequest(
            ids=prompt,
            params=PROBE,
            seed=0,
            stop_ids=(),  # a sequence that ends at once would show little
            model=server.model,
            adapter=server.adapter,
            label=label,
        )
        reply = await self._sampler.reply(server, ask)
        found = await asyncio.to_thread(compare, language_model, prompt, reply, PROBE.temperature)
        if found.gap > self._tolerance:
            raise self._differs(server, found, first=not server.label)

    def _differs(self, server: Server, found: LogprobComparison, *, first: bool) -> OtherWeights:
        off = f"its log-probs are {found.gap:.2g} nats off the trainer's on average"
        limit = f"(engine.tolerance = {self._tolerance:g})"
        if found.gap_before_temperature <= self._tolerance:
            problem = f"{off}, because it reports them before temperature {limit}"
            return server.unfit_as(OtherWeights, problem, f"start it with: {self._dialect.start}")
        dtype = str(self._language_model.dtype).removeprefix("torch.")
        if first:
            problem = f"{off}: it runs other weights, or in another precision {limit}"
            advice = f"start it with the model of the recipe, in {dtype}"
        else:
            problem = (
                f"{off} after it took over weights: it samples from stale ones, or in another precision {limit}"
            )
            advice = f"nothing was trained on them; restart it in {dtype}, see docs/engines.md, and resume the run"
        return server.unfit_as(OtherWeights, problem, advice)


def default_tolerance(language_model: LanguageModel) -> float:
    """Return the tolerance for the precision of the trainer's weights, above rounding and below stale weights."""
    return 1e-3 if language_model.dtype == torch.float32 else 2e-2


async def _all(work: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Await all, to the end, and raise the gravest error: one server's must not leave the others half-way."""
    results = await asyncio.gather(*work, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors:
        raise min(errors, key=lambda error: (isinstance(error, EnvgymError), isinstance(error, ServerFailure)))
    return results


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
