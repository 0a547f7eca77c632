"""Chunked log-probs equal log_softmax in value and gradient, and keep no logits."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM

from envgym_trainers.batch import Batch, as_units, collate
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.models.head import has_plain_head

VOCABULARY = 97
TEMPERATURE = 0.7


@pytest.fixture
def batch(make_sample) -> Batch:
    """Ragged, with an environment's tokens between two turns."""
    masks = [[0, 0, 1, 1, 0, 0, 1], [0, 1, 1], [0, 0, 0, 1, 0]]
    return collate(as_units(make_sample(mask, seed=i) for i, mask in enumerate(masks)), pad_id=0)


@pytest.fixture(scope="module")
def softcapped() -> Gemma2ForCausalLM:
    """A model that squashes its logits after the output embedding."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.5,
        final_logit_softcapping=3.0,
    )
    return Gemma2ForCausalLM(config).double()


def by_log_softmax(model, batch: Batch) -> tuple[Tensor, Tensor]:
    """The definition, from all logits."""
    logits = model(input_ids=batch.ids, attention_mask=batch.attention.long()).logits / TEMPERATURE
    log_p = logits.log_softmax(-1)[:, :-1]
    chosen = log_p.gather(-1, batch.ids[:, 1:, None]).squeeze(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    aligned = [torch.nn.functional.pad(x, (1, 0)) for x in (chosen, entropy)]
    return torch.where(batch.mask, aligned[0], 0.0), torch.where(batch.mask, aligned[1], 0.0)


def gradients(model, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("chunk", [1, 2, 512])
@pytest.mark.parametrize("name", ["tiny_llama", "softcapped"])
def test_equal_to_log_softmax(request, batch, name, chunk):
    """Values, entropy and the gradient of every parameter, for a plain head and for one that softcaps."""
    model = request.getfixturevalue(name)
    weights = torch.randn(batch.ids.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logprobs, entropy = token_logprobs(model, batch, TEMPERATURE, chunk=chunk)
    expected, expected_entropy = by_log_softmax(model, batch)
    torch.testing.assert_close(logprobs, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(entropy, expected_entropy, atol=1e-12, rtol=0)
    assert not entropy.requires_grad
    pairs = zip(
        gradients(model, (weights * logprobs).sum()),
        gradients(model, (weights * expected).sum()),
        strict=True,
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=0)


def saved_widths(compute) -> set[int]:
    """Last dimensions of the tensors that autograd keeps while ``compute`` runs."""
    widths: set[int] = set()

    def pack(tensor: Tensor) -> Tensor:
        if tensor.ndim:
            widths.add(tensor.shape[-1])
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compute()
    return widths


def test_nothing_saved_ends_in_the_vocabulary(tiny_llama, batch):
    """Logits are recomputed, not kept; the definition keeps them, which shows that the hook sees."""
    has_plain_head(tiny_llama)
    assert VOCABULARY not in saved_widths(lambda: token_logprobs(tiny_llama, batch, TEMPERATURE))
    assert VOCABULARY in saved_widths(lambda: by_log_softmax(tiny_llama, batch))


def test_only_sampled_positions_reach_the_head(tiny_llama, batch):
    """The output embedding sees as many rows as tokens were sampled."""
    has_plain_head(tiny_llama)
    rows: list[int] = []
    hook = tiny_llama.lm_head.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    try:
        with torch.no_grad():
            token_logprobs(tiny_llama, batch, TEMPERATURE, chunk=4)
    finally:
        hook.remove()
    assert rows == [4, 2]
    assert sum(rows) == int(batch.mask.sum())


def test_padding_changes_nothing(tiny_llama, make_sample):
    """A sample's log-probs are those it has alone, whatever id pads it."""
    short, long = make_sample([0, 1, 1], seed=1), make_sample([0, 1, 1, 1, 1, 1], seed=2)
    alone, _ = token_logprobs(tiny_llama, collate([(short,)], 0))
    padded, _ = token_logprobs(tiny_llama, collate([(short,), (long,)], 13))
    torch.testing.assert_close(padded[0, :3], alone[0], atol=1e-12, rtol=0)
    assert padded[0, 3:].tolist() == [0.0] * 3


def test_result_is_float32_for_a_bfloat16_model(tiny_llama, batch):
    """Logits are widened before the softmax."""
    half = type(tiny_llama)(tiny_llama.config).bfloat16()
    logprobs, entropy = token_logprobs(half, batch)
    assert logprobs.dtype == entropy.dtype == torch.float32


def test_plain_head_is_told_from_the_models_own_logits(tiny_llama, softcapped):
    """Softcapping is noticed, and asking leaves every module's training mode as it was."""
    fresh = type(tiny_llama)(tiny_llama.config).train()
    fresh.model.layers[0].eval()
    before = [module.training for module in fresh.modules()]
    assert has_plain_head(fresh)
    assert [module.training for module in fresh.modules()] == before
    assert not has_plain_head(softcapped)


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"chunk": 0}])
def test_bad_settings_are_refused(tiny_llama, batch, bad):
    """Temperature 0 has no distribution."""
    with pytest.raises(ValueError, match="positive"):
        token_logprobs(tiny_llama, dataclasses.replace(batch), **bad)
