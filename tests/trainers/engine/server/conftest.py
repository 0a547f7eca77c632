"""A small model behind a server in this process, and engines that sample from it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import torch

from envgym_trainers.engine.interface import engines
from envgym_trainers.engine.server.engine import ServerEngine
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.testing.servers import MODEL_SERVERS, ModelServer, VllmServer

Open = Callable[..., ServerEngine]


@pytest.fixture
def language_model(make_language_model: Callable[[], LanguageModel]) -> LanguageModel:
    """A model whose distributions are uneven enough to show a mistake."""
    made = make_language_model()
    shake(made)
    return made


@torch.no_grad()
def shake(language_model: LanguageModel, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in language_model.model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)


@pytest.fixture(name="shake")
def shake_fixture() -> Callable[..., None]:
    """``shake(model, seed)``: other weights."""
    return shake


@pytest.fixture(params=MODEL_SERVERS)
def dialect(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def server(dialect: str, language_model: LanguageModel) -> Iterator[ModelServer]:
    """A server of each dialect."""
    with MODEL_SERVERS[dialect](language_model) as running:
        yield running


@pytest.fixture
def vllm(language_model: LanguageModel) -> Iterator[VllmServer]:
    """A server of vLLM's dialect alone."""
    with VllmServer(language_model) as running:
        yield running


@pytest.fixture
async def open_engine(language_model: LanguageModel) -> AsyncIterator[Open]:
    """``open_engine("vllm", server.url, …)``: an engine of the model, or one ``of`` another, closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        def run(name: str, *urls: str, of: LanguageModel = language_model, **settings: Any) -> ServerEngine:
            engine = engines.make(name, {"urls": urls, **settings}, language_model=of, concurrency=32)
            assert isinstance(engine, ServerEngine)
            stack.push_async_callback(engine.close)
            return engine

        yield run
