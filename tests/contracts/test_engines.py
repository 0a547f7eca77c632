"""What every registered engine must do; nothing here names one, but for an engine that a stranger could write."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import torch

from envgym.errors import PolicyError, UserError
from envgym_trainers.engine.interface import (
    Engine,
    EngineSession,
    EngineStatistics,
    Sampled,
    SamplingParams,
    VersionSpan,
    engines,
)
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.placement import Device, place
from envgym_trainers.testing import EngineContract
from envgym_trainers.testing.servers import ModelServer, SGLangServer, VllmServer

_DEVICES: tuple[Device, ...] = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


_SERVERS: dict[str, type[ModelServer]] = {"sglang": SGLangServer, "vllm": VllmServer}
"""What an engine that needs a server is tested with."""


class TestRegistered(EngineContract):
    """Every engine that is installed, on every device that is there."""

    device: Device

    @pytest.fixture(autouse=True, params=itertools.product(engines.plugins(), _DEVICES), ids="-".join)
    def _chosen(self, request: pytest.FixtureRequest) -> None:
        self.engine, self.device = request.param

    def language_model(self) -> LanguageModel:
        made = super().language_model()
        place(made.model, self.device, "float32")
        return made

    @contextlib.asynccontextmanager
    async def running(self, language_model: LanguageModel, concurrency: int = 4) -> AsyncIterator[Engine]:
        with contextlib.ExitStack() as stack:
            if self.engine in _SERVERS:
                # Two replicas: conversations are spread, and both are given new weights.
                servers = [stack.enter_context(_SERVERS[self.engine](language_model)) for _ in range(2)]
                self.settings = {"urls": [server.url for server in servers]}
            async with super().running(language_model, concurrency) as engine:
                yield engine


class Plain(Engine):
    """No cache, no batch: a whole forward pass for every token."""

    def __init__(self, **context: Any) -> None:
        super().__init__(**context)
        self._model = self.language_model.model
        self._version = self._tokens = self._completions = 0
        self._closed = False
        self._turns = asyncio.Semaphore(self.concurrency)

    @property
    def version(self) -> int:
        return self._version

    def open(self) -> EngineSession:
        return _PlainSession(self)

    async def update_weights(self, language_model: LanguageModel, version: int) -> None:
        if _shapes(language_model) != _shapes(self.language_model):
            raise UserError("another architecture")
        self._model, self._version = language_model.model, version

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(sampled_tokens=self._tokens, completions=self._completions)

    def check(self) -> None:
        if self._closed:
            raise PolicyError("closed")

    async def close(self) -> None:
        self._closed = True

    async def run(self, ids: list[int], params: SamplingParams, seed: int) -> Sampled:
        async with self._turns:
            temperature, max_tokens = params.temperature, params.max_tokens
            generator, sampled, logprobs = torch.Generator().manual_seed(seed), [], []
            while len(sampled) < max_tokens and not set(sampled) & set(self.language_model.stop_ids):
                logits = self._model(input_ids=torch.tensor([ids + sampled])).logits[0, -1].detach()
                row = (logits / (temperature or 1.0)).log_softmax(-1)
                drawn = torch.multinomial(row.exp(), 1, generator=generator) if temperature else row.argmax()
                sampled.append(int(drawn))
                logprobs.append(float(row[int(drawn)]))
                await asyncio.sleep(0)
            self._tokens += len(sampled)
            self._completions += 1
            ended = sampled[-1] in self.language_model.stop_ids
            return Sampled(
                ids=sampled, logprobs=logprobs, ended=ended, spans=(VersionSpan(self._version, len(sampled)),)
            )


def _shapes(language_model: LanguageModel) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in language_model.weights().items()}


class _PlainSession(EngineSession):
    def __init__(self, engine: Plain) -> None:
        self._engine = engine
        self._ids: list[int] = []
        self._busy = False

    @property
    def length(self) -> int:
        return len(self._ids)

    def rewrite(self) -> None:
        self._ids = []

    async def sample(self, new_ids: list[int], params: SamplingParams, *, seed: int) -> Sampled:
        self._engine.check()
        if self._busy:
            raise RuntimeError("busy")
        ids, most = self._ids + new_ids, self._engine.capacity
        if not ids or params.max_tokens < 1 or len(ids) + params.max_tokens > most:
            raise ValueError(f"at most {most}")
        self._busy = True
        sampled = await self._engine.run(ids, params, seed)
        self._busy = False
        self._ids = ids + sampled.ids
        return sampled

    async def close(self) -> None:
        self._ids = []


class TestStranger(EngineContract):
    """The contract can be met by an engine that shares no code with ours."""

    engine = f"{__name__}:Plain"


class _Hasty(Plain):
    """Reports log-probs that forget the temperature, and never notices new weights."""

    async def run(self, ids: list[int], params: SamplingParams, seed: int) -> Sampled:
        return await super().run(ids, dataclasses.replace(params, temperature=1.0), seed)

    async def update_weights(self, language_model: LanguageModel, version: int) -> None:
        self._version = version


@pytest.mark.parametrize(
    "broken",
    [
        lambda contract: contract.test_logprobs_are_those_of_a_plain_forward_pass(),
        lambda contract: contract.test_greedy_takes_the_most_likely_token_and_reports_it_at_temperature_one(),
        lambda contract: contract.test_new_weights_are_sampled_from_at_once(own=False),
        lambda contract: contract.test_weights_of_another_architecture_are_refused_and_change_nothing(),
    ],
    ids=["temperature", "greedy", "weights", "architecture"],
)
def test_the_contract_notices_an_engine_that_breaks_it(broken: Any) -> None:
    contract = EngineContract()
    contract.engine = f"{__name__}:_Hasty"
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        broken(contract)
