"""Models beside the policy: each fills its column; a critic learns and is saved; a reward model decides."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig

from envgym.errors import UserError
from envgym_trainers.batch import Outputs, Sample, as_units, collate
from envgym_trainers.learner.auxiliary import AuxiliaryModels, annotate_tokens
from envgym_trainers.learner.critic import Critic
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.learner.reference import ReferenceModel
from envgym_trainers.learner.reward_model import RewardModel
from envgym_trainers.learner.updater import Updater
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import load_model
from envgym_trainers.recipe import ReinforcementRecipe

MakeSample = Callable[..., Sample]


def _recipe(folder: Path, **values: Any) -> ReinforcementRecipe:
    model = {"path": str(folder), **values.pop("model", {})}
    return ReinforcementRecipe.model_validate({"mix": [{"env": "e-v1"}], "model": model, **values})


@pytest.fixture
def samples(make_sample: MakeSample) -> list[Sample]:
    return [make_sample([0] * n + [1] * m, seed=n) for n, m in ((1, 3), (4, 1), (2, 6))]


@pytest.mark.parametrize("budget", [1, 16, 1000])
def test_columns_come_back_in_the_order_of_the_samples(samples: list[Sample], budget: int) -> None:
    filled = annotate_tokens(samples, "values", lambda batch: batch.ids.float(), pad_id=0, max_tokens=budget)
    for sample, given in zip(filled, samples, strict=True):
        assert sample.values is not None
        assert sample.values.tolist() == given.ids.float().tolist()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks the old way
def test_the_reference_of_adapters_is_the_base_without_them(model_folder: Path, samples: list[Sample]) -> None:
    """No second model; adapters that have moved change the policy and not the reference."""
    recipe = _recipe(model_folder, model={"lora_rank": 2})
    policy = load_model(recipe.model)
    reference = ReferenceModel(recipe, policy)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.5)
    assert reference._scorer.model is policy.model
    base = load_model(recipe.model.model_copy(update={"lora_rank": 0})).model
    for sample in reference.annotate(samples):
        assert sample.reference_logprobs is not None
        batch = collate([(sample,)], 0)
        of_base, of_policy = (token_logprobs(m, batch)[0][0].detach() for m in (base, policy.model))
        mask = sample.mask
        torch.testing.assert_close(sample.reference_logprobs[mask], of_base[mask])
        assert not torch.allclose(of_policy[mask], of_base[mask], atol=1e-3)


def test_another_reference_can_be_named(
    model_folder: Path, make_language_model: Callable[[], LanguageModel], samples: list[Sample], tmp_path: Path
) -> None:
    other = make_language_model()
    with torch.no_grad():
        other.model.get_input_embeddings().weight.mul_(2)
    other.save(tmp_path)
    found = []
    for path in ("", str(tmp_path)):
        recipe = _recipe(model_folder, auxiliary={"reference": {"path": path}})
        found.append(ReferenceModel(recipe, load_model(recipe.model)).annotate(samples)[0].reference_logprobs)
    assert not torch.allclose(found[0], found[1])


def _value_loss(batch: Any, outputs: Outputs, totals: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    assert outputs.values is not None
    error = torch.where(batch.mask, outputs.values - batch.returns, 0.0)
    return error.square().sum() / totals.tokens, {}


def test_a_critic_learns_what_it_is_told_and_leaves_the_policy_alone(
    model_folder: Path, samples: list[Sample], make_language_model: Callable[[], LanguageModel]
) -> None:
    """Values start at 0 and approach the returns, at the critic's own rate."""
    recipe = _recipe(model_folder, auxiliary={"critic": {"learning_rate": 1e-2}})
    critic, policy = Critic(recipe), make_language_model()
    before = [p.detach().clone() for p in policy.model.parameters()]
    models = AuxiliaryModels({"critic": critic})
    updater = Updater(policy, recipe.optimizer, temperature=1.0, total_updates=1, auxiliary=models)
    told = [Sample(**{n: getattr(s, n) for n in ("ids", "mask", "logprobs", "group", "version")},
                   returns=s.spread(float(i + 1))) for i, s in enumerate(samples)]  # fmt: skip
    assert not any(s.values.any() for s in critic.annotate(told) if s.values is not None)
    rows = [updater.update(as_units(told), _value_loss) for _ in range(60)]
    assert rows[-1]["loss"] < 0.2 * rows[0]["loss"]
    assert rows[0]["critic/grad_norm"] > 0
    assert all(map(torch.equal, before, policy.model.parameters()))
    for sample in critic.annotate(told):
        assert sample.values is not None
        assert not sample.values[~sample.mask].any()


def test_a_critics_value_sees_nothing_of_the_token_that_it_judges(
    model_folder: Path, make_sample: MakeSample
) -> None:
    critic = Critic(_recipe(model_folder))
    torch.nn.init.ones_(critic._network.head.weight)
    sample = make_sample([0, 0, 1, 1, 1])
    batch = collate([(sample,)], 0)
    changed = collate([(sample,)], 0)
    changed.ids[0, 3] = (changed.ids[0, 3] + 1) % 97
    first, second = critic.values(batch)[0], critic.values(changed)[0]
    assert torch.equal(first[:4], second[:4])
    assert first[4] != second[4]


def test_a_restored_critic_predicts_and_learns_as_before(model_folder: Path, samples: list[Sample]) -> None:
    recipe = _recipe(model_folder, auxiliary={"critic": {"learning_rate": 1e-2}})
    told = [Sample(**{n: getattr(s, n) for n in ("ids", "mask", "logprobs", "group", "version")},
                   returns=s.spread(1.0)) for s in samples]  # fmt: skip

    def make() -> Updater:
        models = AuxiliaryModels({"critic": Critic(recipe)})
        policy = load_model(recipe.model)
        return Updater(policy, recipe.optimizer, temperature=1.0, total_updates=1, auxiliary=models)

    first, second = make(), make()
    for _ in range(3):
        first.update(as_units(told), _value_loss)
    second.restore(first.state())
    assert second.update(as_units(told), _value_loss) == first.update(as_units(told), _value_loss)


def _reward_folder(folder: Path, labels: int) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_labels=labels, pad_token_id=0,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def test_a_reward_model_replaces_the_scores_of_those_who_have_one(
    model_folder: Path, samples: list[Sample], tmp_path: Path
) -> None:
    """Missing members stay missing; a member that sampled nothing keeps the environment's score."""
    recipe = _recipe(model_folder, auxiliary={"reward": {"path": str(_reward_folder(tmp_path, 1))}})
    scores = RewardModel(recipe).rescore([samples[:1], [], samples[1:]], [1.0, 0.5, math.nan])
    assert scores[0] not in (1.0, 0.0)
    assert scores[1] == 0.5
    assert math.isnan(scores[2])


def test_a_reward_model_that_is_none_is_refused(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set auxiliary.reward.path to its folder"):
        RewardModel(_recipe(model_folder))
    for path, words in (
        (tmp_path / "none", "holds no sequence classifier"),
        (_reward_folder(tmp_path, 2), "2 labels"),
    ):
        with pytest.raises(UserError, match=words):
            RewardModel(_recipe(model_folder, auxiliary={"reward": {"path": str(path)}}))
