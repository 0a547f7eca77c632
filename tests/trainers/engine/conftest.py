"""Small models of several families, and conversations with an engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from envgym_trainers.engine.in_process import InProcessEngine
from envgym_trainers.engine.interface import EngineSession, Sampled, SamplingParams
from envgym_trainers.models.language_model import LanguageModel

CAPACITY = 64
STOP = 7

_COMMON: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CAPACITY,
    "initializer_range": 0.5,
}
_GPT2: dict[str, Any] = {
    "vocab_size": 97,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": CAPACITY,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
}
_FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama with grouped heads": lambda: LlamaForCausalLM(LlamaConfig(**_COMMON)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_COMMON, head_dim=8)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**_GPT2)),
    "gemma2, capped logits": lambda: Gemma2ForCausalLM(
        Gemma2Config(**_COMMON, head_dim=8, sliding_window=CAPACITY, final_logit_softcapping=2.0)
    ),
    "mistral, window as long as the context": lambda: MistralForCausalLM(
        MistralConfig(**_COMMON, sliding_window=CAPACITY)
    ),
}

Converse = Callable[..., Any]


def _make(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return _FAMILIES[family]().double().eval()


@pytest.fixture(params=_FAMILIES)
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A model of each family, in float64."""
    return _make(request.param)


@pytest.fixture
def model() -> PreTrainedModel:
    """The Llama alone, made anew for every test."""
    return _make("llama with grouped heads")


class _NoTokenizer(LanguageModel):
    """A model alone: an engine needs no more of a tokenizer than the ids that end a turn."""

    stop_ids = (STOP,)


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., InProcessEngine]]:
    """``start(model, concurrency=…)``: an engine that is closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        def run(
            model: PreTrainedModel, *, concurrency: int = 4, capacity: int = CAPACITY, **settings: Any
        ) -> InProcessEngine:
            language_model = _NoTokenizer(model=model, tokenizer=None, context=capacity)
            engine = InProcessEngine(language_model=language_model, concurrency=concurrency, **settings)
            stack.push_async_callback(engine.close)
            return engine

        yield run


@pytest.fixture(scope="session")
def converse() -> Converse:
    """``await converse(session, prompts, seed=…)``: the conversation as ``[(prompt ids, Sampled), …]``."""

    async def run(
        session: EngineSession,
        prompts: list[list[int]],
        *,
        seed: int = 0,
        max_tokens: int = 6,
        temperature: float = 1.0,
        pause: Callable[[], Any] | None = None,
    ) -> list[tuple[list[int], Sampled]]:
        turns = []
        for i, prompt in enumerate(prompts):
            if i and pause:
                await pause()
            sampled = await asyncio.wait_for(
                session.sample(
                    prompt, SamplingParams(max_tokens=max_tokens, temperature=temperature), seed=seed + i
                ),
                60,
            )
            turns.append((prompt, sampled))
        return turns

    return run


@pytest.fixture(scope="session")
def expected_logprobs() -> Callable[..., list[float]]:
    """Log-probs of a conversation's sampled ids by one plain forward pass over all of it."""

    @torch.no_grad()
    def run(
        model: PreTrainedModel, turns: list[tuple[list[int], Sampled]], temperature: float = 1.0
    ) -> list[float]:
        ids: list[int] = []
        places: list[int] = []
        for prompt, sampled in turns:
            ids += prompt
            places += range(len(ids), len(ids) + len(sampled.ids))
            ids += sampled.ids
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
        table = torch.log_softmax(logits / temperature, dim=-1)
        return [float(table[place - 1, ids[place]]) for place in places]

    return run
