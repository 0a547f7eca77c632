"""The engine packs linear layers; the trainer's own passes never see them, and new weights are never old ones."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from envgym_trainers.engine import view
from envgym_trainers.engine.in_process import InProcessEngine
from envgym_trainers.engine.interface import SamplingParams

Start = Callable[..., InProcessEngine]


def packed(engine: InProcessEngine) -> list[Any]:
    return engine._loop.scheduler._view._packed


@pytest.fixture(params=["float32", "bfloat16"])
def large(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A model whose linear layers are worth packing: 19 MB in float32."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20_000,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.1,
    )
    return LlamaForCausalLM(config).to(getattr(torch, request.param)).eval()


def tolerance(model: PreTrainedModel) -> float:
    return 1e-4 if model.dtype is torch.float32 else 0.15


async def test_packed_layers_say_what_the_model_says(
    large: PreTrainedModel, start: Start, converse: Any, expected_logprobs: Callable[..., list[float]]
) -> None:
    engine = start(large)
    assert len(packed(engine)) == 9, "15 layers; those that project the same states are one product"
    turns = await converse(engine.open(), [[9, 10, 11], [12, 13]])
    found = [value for _, sampled in turns for value in sampled.logprobs]
    assert found == pytest.approx(expected_logprobs(large, turns), abs=tolerance(large))


@pytest.mark.parametrize("own", [True, False], ids=["the engine's own model", "another model"])
async def test_new_weights_are_packed_again(
    large: PreTrainedModel, start: Start, converse: Any, expected_logprobs: Callable[..., list[float]], own: bool
) -> None:
    """Stale packed weights would give the log-probs of the old model, and no error."""
    engine = start(large)
    old = copy.deepcopy(large)
    await converse(engine.open(), [[9, 10, 11]])
    changed = large if own else copy.deepcopy(large)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    await engine.update_weights(dataclasses.replace(engine.language_model, model=changed), 1)
    turns = await converse(engine.open(), [[9, 10, 11]])
    found = turns[0][1].logprobs
    assert found == pytest.approx(expected_logprobs(changed, turns), abs=tolerance(large))
    assert found != pytest.approx(expected_logprobs(old, turns), abs=10 * tolerance(large))


async def test_the_trainer_runs_its_own_layers(large: PreTrainedModel, start: Start) -> None:
    """While the engine is there, a pass of the model is what it was before, and every weight has a gradient."""
    ids = torch.tensor([[9, 10, 11, 12]])
    before = large(input_ids=ids).logits
    engine = start(large)
    await engine.open().sample([9, 10], SamplingParams(max_tokens=2), seed=0)
    after = large(input_ids=ids).logits
    assert torch.equal(after, before)
    after.float().logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in large.parameters())
    assert large.config._attn_implementation == "sdpa"


async def test_rest_frees_what_the_engine_can_make_again(
    large: PreTrainedModel, start: Start, converse: Any, expected_logprobs: Callable[..., list[float]]
) -> None:
    """Packed weights and keys go; the conversation goes on as if nothing had happened."""
    engine = start(large)
    cache = engine._loop.scheduler._cache

    async def rest() -> None:
        assert cache.tokens > 0
        await engine.rest()
        assert cache.tokens == 0
        assert all(product.weight is None for product in packed(engine))

    turns = await converse(engine.open(), [[9, 10, 11], [12, 13], [14]], pause=rest)
    found = [value for _, sampled in turns for value in sampled.logprobs]
    assert found == pytest.approx(expected_logprobs(large, turns), abs=tolerance(large))


async def test_small_models_and_float64_are_not_packed(model: PreTrainedModel, start: Start) -> None:
    assert packed(start(model)) == []
    assert packed(start(model.float())) == []


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Say whether the processor multiplies in bfloat16 itself."""
    answer = [False]
    monkeypatch.setattr(view, "_has_bfloat16", lambda: answer[0])
    return answer


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
async def test_products_of_bfloat16_run_in_float32_where_the_processor_has_none(
    large: PreTrainedModel, start: Start, native: list[bool], has: bool, dtype: torch.dtype
) -> None:
    native[0] = has
    if large.dtype is torch.bfloat16:
        assert {product._dtype for product in packed(start(large))} == {dtype}
    else:
        assert {product._dtype for product in packed(start(large))} == {torch.float32}
