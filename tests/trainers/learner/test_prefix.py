"""What samples share is run once, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from envgym_trainers.batch import Batch, Sample, as_units, collate
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.learner.prefix import pack, run_packed, shares_prefixes

WIDTH = 160
SMALL = {
    "vocab_size": 16,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request: pytest.FixtureRequest) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(**SMALL, attn_implementation=request.param)
    return LlamaForCausalLM(config).eval()


def batch_of(rows: list[list[int]], sampled: int = 2) -> Batch:
    samples = []
    for row in rows:
        ids = torch.tensor(row)
        mask = torch.arange(len(row)) >= len(row) - sampled
        samples.append(Sample(ids=ids, mask=mask, logprobs=ids.float(), group="g", version=0))
    return collate(as_units(samples), 0)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_every_token_sees_its_own_past(data: st.DataObject) -> None:
    """Ancestors and self, in order, are the sample up to that token; positions count from its beginning."""
    token = st.integers(0, 2)
    shared = data.draw(st.lists(token, min_size=4, max_size=30))
    tails = data.draw(st.lists(st.lists(token, max_size=12), min_size=3, max_size=9))
    batch = batch_of([shared + tail for tail in tails])
    packed = pack(batch, WIDTH)
    if packed is None:
        return
    width = packed.ids.shape[1]
    for b, tail in enumerate(tails):
        for t in range(len(shared + tail)):
            row, column = divmod(int(packed.where[b, t]), width)
            seen = packed.visible[row, 0, column].nonzero()[:, 0]
            assert packed.ids[row, seen].tolist() == (shared + tail)[: t + 1]
            assert packed.positions[row, seen].tolist() == list(range(t + 1))


def test_a_shared_prompt_is_run_once() -> None:
    packed = pack(batch_of([[5] * 50 + [1, i] for i in range(8)]), WIDTH)
    assert packed is not None
    assert packed.ids.shape == (1, 59), "fifty, the 1 they also share, and eight tokens of their own"


def test_rows_stay_short(model: LlamaForCausalLM) -> None:
    """A row's attention costs its length squared."""
    packed = pack(batch_of([[5] * 200 + [i] * 50 for i in range(8)]), WIDTH)
    assert packed is not None
    assert packed.ids.shape == (4, 300)


def test_samples_that_share_nothing_are_left_alone() -> None:
    assert pack(batch_of([[i, i, i] for i in range(8)]), WIDTH) is None


def test_log_probs_and_gradients_are_those_of_separate_rows(model: LlamaForCausalLM) -> None:
    rows = [[7, 3, 9, 4, 2, 2, 8, i, (3 * i) % 16] + [5] * i for i in range(6)] + [[1, 2, 3, 4]]
    batch = batch_of(rows)
    assert pack(batch, WIDTH) is not None
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


def test_padding_has_finite_states(model: LlamaForCausalLM) -> None:
    packed = pack(batch_of([[5] * 300 + [i, i] for i in range(10)] + [[1, 2, 3]] * 20), WIDTH)
    assert packed is not None
    assert run_packed(model, model.get_decoder(), packed).isfinite().all()
