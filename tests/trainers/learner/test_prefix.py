"""What samples share is run once, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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

from envgym_trainers.batch import Batch, Sample, as_units, collate
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.learner.prefix import pack, run_packed, shares_prefixes

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


def batch_of(rows: list[list[int]], sampled: int = 2) -> Batch:
    samples = []
    for row in rows:
        ids = torch.tensor(row)
        mask = torch.arange(len(row)) >= len(row) - sampled
        samples.append(Sample(ids=ids, mask=mask, logprobs=ids.float(), group="g", version=0))
    return collate(as_units(samples), 0)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_every_distinct_prefix_has_one_place(data: st.DataObject) -> None:
    """Rows read back are the samples; equal openings share places, and positions count from the start."""
    token = st.integers(0, 2)
    shared = data.draw(st.lists(token, min_size=4, max_size=30))
    tails = data.draw(st.lists(st.lists(token, max_size=12), min_size=3, max_size=9))
    batch = batch_of([shared + tail for tail in tails])
    packed = pack(batch)
    if packed is None:
        return
    seen: dict[tuple[int, ...], int] = {}
    for b, tail in enumerate(tails):
        row = shared + tail
        where = packed.where[b, : len(row)]
        assert packed.ids[0, where].tolist() == row
        assert packed.positions[0, where].tolist() == list(range(len(row)))
        for t, place in enumerate(where.tolist()):
            assert seen.setdefault(tuple(row[: t + 1]), place) == place
    assert sorted(seen.values()) == list(range(packed.ids.shape[1])), "one place for each distinct prefix"
    for place, source in enumerate(packed.sources.tolist()):
        assert packed.where.flatten()[source] == place
        assert batch.attention.flatten()[source]


def test_a_shared_prompt_is_run_once() -> None:
    packed = pack(batch_of([[5] * 50 + [1, i] for i in range(8)]))
    assert packed is not None
    assert packed.ids.shape == (1, 59), "fifty, the 1 they also share, and eight tokens of their own"


def test_samples_that_share_nothing_are_left_alone() -> None:
    assert pack(batch_of([[i, i, i] for i in range(8)])) is None


def test_log_probs_and_gradients_are_those_of_separate_rows(model: LlamaForCausalLM) -> None:
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
    assert not shares_prefixes(narrow, narrow.get_decoder())
    wide = MistralForCausalLM(MistralConfig(**SMALL, sliding_window=None)).eval()
    assert shares_prefixes(wide, wide.get_decoder())


def test_padding_is_not_run() -> None:
    """Where lengths differ, packing pays without any shared token."""
    packed = pack(batch_of([[i, *range(length)] for i, length in enumerate([14, 2, 3])]))
    assert packed is not None
    assert packed.ids.shape == (1, 22)


def test_no_mask_of_every_pair_is_made(model: LlamaForCausalLM) -> None:
    """A mask of 59 by 59, or of 52 by 52 for each sample, would grow with the square of the length."""
    batch = batch_of([[5] * 50 + [1, i] for i in range(8)])
    assert shares_prefixes(model, model.get_decoder())
    packed = pack(batch)
    assert packed is not None
    sizes: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.dtype == torch.bool:
                sizes.append(made.numel())
            return made

    with Watch():
        run_packed(model.get_decoder(), packed)
    assert max(sizes) < 52 * 52


def test_other_attention_goes_without() -> None:
    """Only scaled-dot-product attention can be given rows; the log-probs are the same, in padded rows."""
    torch.manual_seed(0)
    eager = LlamaForCausalLM(LlamaConfig(**SMALL, attn_implementation="eager")).eval()
    assert not shares_prefixes(eager, eager.get_decoder())
    torch.manual_seed(0)
    other = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    assert shares_prefixes(other, other.get_decoder())
    batch = batch_of([[7, 3, 9, 4, 2, i] for i in range(6)])
    torch.testing.assert_close(token_logprobs(eager, batch), token_logprobs(other, batch), atol=1e-5, rtol=1e-5)


def test_sharing_leaves_the_saved_model_and_its_own_passes_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    ids = torch.tensor([[3, 1, 2, 2], [1, 4, 0, 0]])
    seen = {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])}
    before = model(**seen).logits
    assert shares_prefixes(model, model.get_decoder())
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
    assert shares_prefixes(model, model.get_decoder())
