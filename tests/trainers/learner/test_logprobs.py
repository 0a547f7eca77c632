"""Chunked log-probs equal log_softmax in value and gradient, and keep no logits."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from envgym_trainers.batch import Batch, as_units, collate
from envgym_trainers.learner import scores
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.models.head import has_plain_head, logits_head

VOCABULARY = 97
TEMPERATURE = 0.7


@pytest.fixture
def batch(make_sample) -> Batch:
    """Ragged, with an environment's tokens between two turns."""
    masks = [[0, 0, 1, 1, 0, 0, 1], [0, 1, 1], [0, 0, 0, 1, 0]]
    return collate(as_units(make_sample(mask, seed=i) for i, mask in enumerate(masks)), pad_id=0)


FAMILIES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "llama": (transformers.LlamaConfig, {}),
    "qwen2": (transformers.Qwen2Config, {"tie_word_embeddings": True}),
    "gemma2": (transformers.Gemma2Config, {"head_dim": 8, "final_logit_softcapping": 3.0}),
    "gemma3": (transformers.Gemma3TextConfig, {"head_dim": 8}),
    "gemma3_softcapped": (transformers.Gemma3TextConfig, {"head_dim": 8, "final_logit_softcapping": 3.0}),
    "cohere": (transformers.CohereConfig, {"logit_scale": 0.25}),
    "granite": (transformers.GraniteConfig, {"logits_scaling": 4.0, "residual_multiplier": 0.5}),
    "gpt2": (transformers.GPT2Config, {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}),
    "phi3": (transformers.Phi3Config, {}),
    "smollm3": (transformers.SmolLM3Config, {}),
}
"""Families with heads that differ: tied or not, squashed, scaled up or down."""
PLAIN = {"llama", "qwen2", "gemma3", "gpt2", "phi3", "smollm3"}


def of_family(name: str) -> PreTrainedModel:
    """Return a random model of two layers in float64, 16 wide."""
    torch.manual_seed(0)
    kind, values = FAMILIES[name]
    sizes: dict[str, Any] = {"intermediate_size": 32, "num_key_value_heads": 1, "initializer_range": 0.5}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    shape = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if name == "gpt2":
        sizes = {"initializer_range": 0.5}
    model: PreTrainedModel = AutoModelForCausalLM.from_config(kind(**shape, **sizes, **ids, **values))
    return model.double().eval()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> tuple[str, PreTrainedModel]:
    """A name of ``FAMILIES`` and a model of it."""
    return request.param, of_family(request.param)


@pytest.fixture(scope="module")
def softcapped() -> PreTrainedModel:
    """A model that squashes its logits after the output embedding."""
    return of_family("gemma2")


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


LOGITS = VOCABULARY * 8
"""Bytes of the float64 logits of one position."""


@pytest.mark.parametrize("kept", [0, 2 * LOGITS, 512 * LOGITS])
@pytest.mark.parametrize("chunk", [1, 2, 512])
@pytest.mark.parametrize("name", ["tiny_llama", "softcapped"])
def test_equal_to_log_softmax(request, monkeypatch, batch, name, chunk, kept):
    """Values, entropy and the gradient of every parameter, for any head, and however much of it is run twice."""
    monkeypatch.setattr(scores, "_KEPT_BYTES", kept)
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


class _Rows(TorchDispatchMode):
    """Notes the largest number of rows of a tensor whose last dimension is the vocabulary."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor) and tensor.ndim > 1 and tensor.shape[-1] == VOCABULARY:
                self.largest = max(self.largest, tensor.numel() // VOCABULARY)
        return result


def test_every_family_is_scored_in_chunks(family, make_sample):
    """Values and gradients are those of all logits, of which no operation, forward or backward, makes more than a
    chunk; the 16 rows of a transposed output embedding of 16 columns are allowed for."""
    name, model = family
    batch = collate(as_units(make_sample([0, 0] + [1] * n, seed=n) for n in (20, 9, 31)), pad_id=0)
    assert has_plain_head(model) == (name in PLAIN)
    assert logits_head(model) is not None
    with _Rows() as rows:
        logprobs, entropy = token_logprobs(model, batch, TEMPERATURE, chunk=8)
        found = gradients(model, logprobs.square().sum())
    assert 8 <= rows.largest <= 16
    with _Rows() as rows:
        expected, expected_entropy = by_log_softmax(model, batch)
    assert rows.largest >= 60
    torch.testing.assert_close(logprobs, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(entropy, expected_entropy, atol=1e-10, rtol=0)
    tolerance = 1e-4 if name == "cohere" else 1e-9  # Cohere's norms round to float32, in both directions
    for ours, theirs in zip(found, gradients(model, expected.square().sum()), strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


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


def test_nothing_saved_ends_in_the_vocabulary(monkeypatch, tiny_llama, batch):
    """Logits are recomputed, not kept; the definition keeps them, which shows that the hook sees."""
    has_plain_head(tiny_llama)
    monkeypatch.setattr(scores, "_KEPT_BYTES", 0)
    assert VOCABULARY not in saved_widths(lambda: token_logprobs(tiny_llama, batch, TEMPERATURE))
    assert VOCABULARY in saved_widths(lambda: by_log_softmax(tiny_llama, batch))


@pytest.mark.parametrize(("kept", "twice"), [(0, [4, 2]), (4 * LOGITS, [2]), (6 * LOGITS, [])])
def test_kept_logits_have_a_bound(monkeypatch, tiny_llama, batch, kept, twice):
    """As many chunks as fit are kept for the backward pass; the head runs again for the others."""
    has_plain_head(tiny_llama)
    monkeypatch.setattr(scores, "_KEPT_BYTES", kept)
    logprobs, _ = token_logprobs(tiny_llama, batch, TEMPERATURE, chunk=4)
    rows: list[int] = []
    hook = tiny_llama.lm_head.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    try:
        gradients(tiny_llama, logprobs.sum())
    finally:
        hook.remove()
    assert rows == twice


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


def test_states_that_are_the_logits_are_left_as_they_were():
    """The identity is the head where logits are there already; values and gradient are log_softmax's."""
    logits = torch.randn(5, VOCABULARY, dtype=torch.float64, requires_grad=True)
    before = logits.detach().clone()
    targets = torch.tensor([3, 1, 4, 1, 5])
    logprobs, _ = scores.score(torch.nn.Identity(), logits, targets, 1.0, 2)
    (found,) = torch.autograd.grad(logprobs.sum(), logits)
    assert torch.equal(logits, before)
    expected = logits.log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    torch.testing.assert_close(logprobs, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(found, torch.autograd.grad(expected.sum(), logits)[0], atol=1e-12, rtol=0)
