"""Ids without a token are never sampled, and neither engine nor trainer gives them any probability."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from envgym.errors import UserError
from envgym_trainers.batch import Sample, collate
from envgym_trainers.engine.in_process import InProcessEngine
from envgym_trainers.engine.interface import Sampled, SamplingParams
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.models.head import has_plain_head
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import ModelConfig, load_model
from envgym_trainers.models.tiny import make_tokenizer

_ROWS = 320
_SIZES = {
    "vocab_size": _ROWS,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
_FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "padded embedding": lambda: LlamaForCausalLM(LlamaConfig(**_SIZES, tie_word_embeddings=True)),
    "own head": lambda: LlamaForCausalLM(LlamaConfig(**_SIZES, tie_word_embeddings=False)),
    "capped logits": lambda: Gemma2ForCausalLM(
        Gemma2Config(**_SIZES, head_dim=8, sliding_window=256, final_logit_softcapping=2.0)
    ),
}


def _with_holes() -> PreTrainedTokenizerFast:
    """A tokenizer that has nothing for the numbers of the letters q and z, which it moved to 308 and 309."""
    made = make_tokenizer(["hello"], 300)
    described = json.loads(made.backend_tokenizer.to_str())
    described["model"]["vocab"] |= {"q": 308, "z": 309}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        eos_token="<|end|>",
        pad_token="<|pad|>",
        chat_template=made.chat_template,
    )


@pytest.fixture(params=_FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> LanguageModel:
    """A model whose flat logits would often choose a row without a token, saved and loaded."""
    torch.manual_seed(0)
    LanguageModel(model=_FAMILIES[request.param](), tokenizer=_with_holes(), context=256).save(tmp_path)
    return load_model(ModelConfig(path=str(tmp_path), context=256))


async def _sample(language_model: LanguageModel, temperature: float) -> Sampled:
    held = dataclasses.replace(language_model)
    vars(held)["stop_ids"] = ()
    engine = InProcessEngine(language_model=held, concurrency=1)
    try:
        return await engine.open().sample(
            [70, 71], SamplingParams(max_tokens=200, temperature=temperature), seed=0
        )
    finally:
        await engine.close()


def test_the_tokenizer_here_has_holes_and_the_model_spare_rows() -> None:
    ids = set(_with_holes().get_vocab().values())
    assert len(ids) < max(ids) - 20
    assert max(ids) == 309 < _ROWS - 1


@pytest.mark.parametrize("temperature", [0.7, 1.0])
async def test_no_id_without_a_token_is_sampled_and_the_trainer_agrees(
    loaded: LanguageModel, temperature: float
) -> None:
    """Of 200 nearly uniform draws, dozens would have no token; log-probs are those of the ids that are left."""
    known = sorted(loaded.tokenizer.get_vocab().values())
    sampled = await _sample(loaded, temperature)
    assert set(sampled.ids) <= set(known)
    ids = torch.tensor([70, 71, *sampled.ids])
    mask = torch.arange(len(ids)) >= 2
    sample = Sample(ids=ids, mask=mask, logprobs=torch.zeros(len(ids)), group="g", version=0)
    logprobs, entropy = token_logprobs(loaded.model, collate([(sample,)], 0), temperature)
    assert logprobs[0, 2:].tolist() == pytest.approx(sampled.logprobs, abs=1e-4)
    with torch.no_grad():
        logits = loaded.model(input_ids=ids[None]).logits[0, 1:-1]
    table = torch.log_softmax(logits[:, known] / temperature, -1)
    places = [known.index(i) for i in sampled.ids]
    assert table[range(len(places)), places].tolist() == pytest.approx(sampled.logprobs, abs=1e-4)
    assert entropy[0, 2:].tolist() == pytest.approx((-table.exp() * table).sum(-1).tolist(), abs=1e-4)


async def test_a_row_without_a_token_never_wins(loaded: LanguageModel) -> None:
    """Even where the model is sure of it, greedily too; and training on other ids gives its logit no gradient."""
    head = loaded.model.get_output_embeddings()
    with torch.no_grad():
        head.weight[310:] *= 1000
    sampled = await _sample(loaded, 0.0)
    assert max(sampled.ids) <= 309
    sample = Sample(
        ids=torch.tensor([70, 71, 72]),
        mask=torch.tensor([False, True, True]),
        logprobs=torch.zeros(3),
        group="g",
        version=0,
    )
    logprobs, entropy = token_logprobs(loaded.model, collate([(sample,)], 0))
    assert torch.isfinite(logprobs).all()
    assert torch.isfinite(entropy).all()
    logprobs.sum().backward()
    assert head.weight.grad is not None
    assert torch.count_nonzero(head.weight.grad[310:]) == 0
    assert torch.count_nonzero(head.weight.grad[:260]) > 0


def test_a_plain_head_stays_plain(loaded: LanguageModel) -> None:
    """The trainer need not run such a model whole, which would keep all logits."""
    assert has_plain_head(loaded.model) == isinstance(loaded.model, LlamaForCausalLM)


def test_a_token_beyond_the_model_is_refused_however_few_there_are(tmp_path: Path) -> None:
    small = LlamaForCausalLM(LlamaConfig(**{**_SIZES, "vocab_size": 305}))
    LanguageModel(model=small, tokenizer=_with_holes(), context=64).save(tmp_path)
    with pytest.raises(UserError, match="its tokenizer has 310 tokens, the model 305"):
        load_model(ModelConfig(path=str(tmp_path), context=64))


def test_saving_keeps_every_row(loaded: LanguageModel, tmp_path: Path) -> None:
    loaded.save(tmp_path / "again")
    again = load_model(ModelConfig(path=str(tmp_path / "again"), context=256))
    for (name, one), two in zip(loaded.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two), name
