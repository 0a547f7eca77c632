"""What samples share is run once, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from envgym_trainers.batch import Batch
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.learner.packing import pack
from envgym_trainers.learner.states import hidden_states, shares_prefixes

BatchOf = Callable[[list[list[int]]], Batch]
SMALL = {
    "vocab_size": 16,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMALL)).eval()


def test_log_probs_and_gradients_are_those_of_separate_rows(model: LlamaForCausalLM, batch_of: BatchOf) -> None:
    rows = [[7, 3, 9, 4, 2, 2, 8, i, (3 * i) % 16] + [5] * i for i in range(6)] + [[1, 2, 3, 4]]
    batch = batch_of(rows)
    assert pack(batch) is not None
    together, entropy = token_logprobs(model, batch)
    together.sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    for b, row in enumerate(rows):
        alone, one_entropy = token_logprobs(model, batch_of([row]))
        alone.sum().backward()
        torch.testing.assert_close(together[b, : len(row)], alone[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(entropy[b, : len(row)], one_entropy[0], atol=1e-5, rtol=1e-5)
    separate = [p.grad for p in model.parameters() if p.grad is not None]
    torch.testing.assert_close(gradients, separate, atol=1e-5, rtol=1e-4)


def test_a_window_is_not_run_as_trees() -> None:
    """A tree's mask would let every layer look back further than the model does."""
    narrow = MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)).eval()
    assert not shares_prefixes(narrow)
    wide = MistralForCausalLM(MistralConfig(**SMALL, sliding_window=None)).eval()
    assert shares_prefixes(wide)


def test_no_mask_of_every_pair_is_made(model: LlamaForCausalLM, batch_of: BatchOf) -> None:
    """A mask of 59 by 59, or of 52 by 52 for each sample, would grow with the square of the length."""
    batch = batch_of([[5] * 50 + [1, i] for i in range(8)])
    assert shares_prefixes(model)
    assert pack(batch) is not None
    sizes: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.dtype == torch.bool:
                sizes.append(made.numel())
            return made

    with Watch():
        hidden_states(model.get_decoder(), batch, batch.mask)
    assert max(sizes, default=0) < 52 * 52


def test_other_attention_goes_without(batch_of: BatchOf) -> None:
    """Only scaled-dot-product attention can be given rows; the log-probs are the same, in padded rows."""
    torch.manual_seed(0)
    eager = LlamaForCausalLM(LlamaConfig(**SMALL, attn_implementation="eager")).eval()
    assert not shares_prefixes(eager)
    torch.manual_seed(0)
    other = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    assert shares_prefixes(other)
    batch = batch_of([[7, 3, 9, 4, 2, i] for i in range(6)])
    torch.testing.assert_close(token_logprobs(eager, batch), token_logprobs(other, batch), atol=1e-5, rtol=1e-5)


def test_sharing_leaves_the_saved_model_and_its_own_passes_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    ids = torch.tensor([[3, 1, 2, 2], [1, 4, 0, 0]])
    seen = {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])}
    before = model(**seen).logits
    assert shares_prefixes(model)
    assert torch.equal(model(**seen).logits, before)
    model.save_pretrained(tmp_path)
    assert "envgym" not in (tmp_path / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        (GPT2LMHeadModel, GPT2Config(vocab_size=16, n_embd=16, n_layer=2, n_head=2, n_positions=64)),
        (Qwen2ForCausalLM, Qwen2Config(**SMALL)),
        (GraniteForCausalLM, GraniteConfig(**SMALL)),
        (CohereForCausalLM, CohereConfig(**SMALL)),
    ],
)
def test_families_share_prefixes(family: Any, settings: Any) -> None:
    model = family(settings)
    assert shares_prefixes(model)


def test_16_bit_models_share_prefixes() -> None:
    """Large states, as trained models have at their first token, must not hide that nothing is wrong."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).bfloat16()
    with torch.no_grad():
        model.model.embed_tokens.weight[:3] *= 300
    assert shares_prefixes(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_with_a_mask_of_its_own_is_found_out(dtype: torch.dtype) -> None:
    """Rows are causal; a model that looks ahead by itself may not be run as rows, in any precision."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).to(dtype)
    backbone: Any = model.get_decoder()
    causal = backbone.forward

    def look_ahead(*args: Any, attention_mask: Any = None, **options: Any) -> Any:
        width = options["input_ids"].shape[1]
        mask = torch.ones(1, 1, width, width, dtype=torch.bool) if attention_mask is None else attention_mask
        return causal(*args, attention_mask=mask, **options)

    backbone.forward = look_ahead
    assert not shares_prefixes(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_works_on_shared_starts_once(dtype: torch.dtype, batch_of: BatchOf) -> None:
    """Two groups with long prompts and a sample that shares nothing: values and gradients are those of rows."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).eval().to(dtype)
    rows = [[g, *[3, 9, 4, 2, 7] * 40, i, (3 * i) % 16] + [5] * i for g in (1, 2) for i in range(4)] + [
        [6, 2, 3, 4]
    ]
    packed = pack(batch_of(rows))
    assert packed is not None
    assert [part.ahead for part in packed.rows.parts] == [0, 201, 201]
    together, _ = token_logprobs(model, batch_of(rows))
    together.sum().backward()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    limits = {"atol": 1e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
    for b, row in enumerate(rows):
        alone, _ = token_logprobs(model, batch_of([row]))
        alone.sum().backward()
        torch.testing.assert_close(together[b, : len(row)], alone[0], **limits)
    if dtype == torch.float32:  # sums of 16-bit gradients depend on their order
        separate = [p.grad for p in model.parameters() if p.grad is not None]
        torch.testing.assert_close(found, separate, atol=1e-4, rtol=1e-3)
