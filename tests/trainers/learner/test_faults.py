"""What is not finite costs its own trajectory or update, is counted and named, and never reaches a weight."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from envgym.records import Message, Outcome, Score, Task, Trajectory, Turn, TurnTokens
from envgym.rollout.collector import Group
from envgym_trainers.batch import Batch, Outputs, Sample, as_units, collate
from envgym_trainers.learner.auxiliary import Auxiliary, AuxiliaryModels, annotate_tokens
from envgym_trainers.learner.critic import Critic
from envgym_trainers.learner.faults import NotFinite, broken_column, some
from envgym_trainers.learner.learner import Learner
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.learner.mismatch import EngineMismatch
from envgym_trainers.learner.optimizer import MasterAdamW
from envgym_trainers.learner.updater import Updater
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.objectives import Metrics
from envgym_trainers.objectives.ops.reduction import Totals
from envgym_trainers.recipe import OptimizerConfig, ReinforcementRecipe
from envgym_trainers.stages.sft import negative_log_likelihood

MakeSample = Callable[..., Sample]
_MANY = ("grpo", "dapo", "ppo", "dpo")


def _trajectory(score: float, first: int, *, turn: float = 0.0) -> Trajectory:
    tokens = TurnTokens(prompt_ids=[10, 11], completion_ids=[first, 50], logprobs=[-1.0] * 2, policy_version=0)
    action = Message(role="assistant", content="")
    return Trajectory(
        env="sums",
        task=Task(id="7", split="train", messages=()),
        turns=[Turn(messages=(), action=action, tokens=tokens, reward=turn)],
        outcome=Outcome.completed(),
        score=Score(value=score, accuracy=0.0),
    )


def _group(*trajectories: Trajectory) -> Group:
    return Group(env="sums", task=Task(id="7", split="train", messages=()), trajectories=list(trajectories))


def _credit(seen: Sequence[Sequence[Sample]]) -> list[tuple[int, list[float]]]:
    """Return the first sampled id of each sample, and its advantages."""
    found = []
    for sample in (sample for update in seen for sample in update):
        assert sample.advantages is not None
        found.append((int(sample.ids[2]), sample.advantages.tolist()))
    return sorted(found)


@pytest.mark.parametrize("objective", _MANY)
@pytest.mark.parametrize(
    ("score", "turn"), [(math.nan, 0.0), (math.inf, 0.0), (-math.inf, 0.0), (1.0, math.nan), (1e300, 0.0)]
)
def test_a_reward_that_is_not_finite_costs_its_trajectory_alone(
    objective: str, score: float, turn: float, make_learner: Any, watch: Any
) -> None:
    """The others' advantages are bit-equal to those of the group without it; 1e300 is infinite in float32."""
    sound = [_trajectory(value, 20 + i) for i, value in enumerate((1.0, 0.0, 0.25))]
    credit = []
    for members in ([*sound, _trajectory(score, 30, turn=turn)], sound):
        learner = make_learner({"name": objective})
        seen = watch(learner)
        row = learner.learn([_group(*members)], 1)
        credit.append(_credit(seen))
        assert row["not_finite"] == len(members) - 3
        assert learner.faults == ["left out, not finite: sums/7 (reward)"] * (len(members) - 3)
    assert credit[0] == credit[1] != []


class _Broken(Auxiliary):
    """Fills one column, with NaN for the trajectory that begins with token 30."""

    def __init__(self, column: str) -> None:
        self._column = column

    def annotate(self, samples: Sequence[Sample]) -> list[Sample]:
        values = [s.spread(math.nan if int(s.ids[2]) == 30 else -1.0) for s in samples]
        columns: list[dict[str, Any]] = [{self._column: value} for value in values]
        return [dataclasses.replace(s, **column) for s, column in zip(samples, columns, strict=True)]

    def rescore(self, samples: Sequence[Sequence[Sample]], scores: Sequence[float]) -> list[float]:
        return [math.inf if int(own[0].ids[2]) == 30 else s for own, s in zip(samples, scores, strict=True)]


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("values", "score of the reward model"),
        ("values", "values of the critic"),
        ("reference_logprobs", "reference log-probs"),
        ("old_logprobs", "old log-probs"),
        ("turn_rewards", "rewards of turns"),
    ],
)
def test_a_column_that_is_not_finite_costs_its_trajectory_alone(
    column: str, name: str, make_learner: Any, watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = [_trajectory(value, 20 + i) for i, value in enumerate((1.0, 0.0, 0.25))]
    credit = []
    for members in ([*sound, _trajectory(1.0, 30)], sound):
        learner = make_learner({"name": "grpo"})
        broken = _Broken(column)
        if not name.startswith("score"):
            monkeypatch.setattr(broken, "rescore", lambda _, scores: list(scores))
        for part in (learner, learner.updater):
            monkeypatch.setattr(part, "_auxiliary", AuxiliaryModels({"broken": broken}))
        seen = watch(learner)
        learner.learn([_group(*members)], 1)
        credit.append(_credit(seen))
        assert learner.faults == [f"left out, not finite: sums/7 ({name})"] * (len(members) - 3)
    assert credit[0] == credit[1] != []


def test_a_column_is_looked_at_where_tokens_were_sampled_only(make_sample: MakeSample) -> None:
    """A prompt may have NaN, as a collated batch has outside the mask."""
    outside = torch.tensor([math.nan, -1.0, math.nan])
    sample = make_sample([0, 1, 0], values=outside, reference_logprobs=outside)
    assert broken_column([sample]) == ""
    assert broken_column([sample, make_sample([0, 1, 1], old_logprobs=outside)]) == "old log-probs"


def test_what_is_not_finite_stays_with_its_own_sample(
    make_language_model: Callable[[], LanguageModel], make_sample: MakeSample
) -> None:
    """Where samples share their first token, one with a broken embedding leaves the others their columns."""
    model: Any = make_language_model().model
    samples = [make_sample([0, 1, 1], seed=i) for i in range(3)]
    for i, sample in enumerate(samples):
        sample.ids[:] = torch.tensor([1, 100 + i, 7])

    def run(batch: Batch) -> torch.Tensor:
        return token_logprobs(model, batch)[0]

    sound = annotate_tokens(samples, "reference_logprobs", run, pad_id=0, max_tokens=1000)
    model.config.tie_word_embeddings = False
    with torch.no_grad():
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
        model.model.embed_tokens.weight[102] = math.nan
    assert not run(collate(as_units(samples), 0)).isfinite().all(-1).any(), "all of them break together"
    broken = annotate_tokens(samples, "reference_logprobs", run, pad_id=0, max_tokens=1000)
    assert [broken_column([sample]) != "" for sample in broken] == [False, False, True]
    for one, two in zip(sound[:2], broken[:2], strict=True):
        assert one.reference_logprobs is not None
        assert two.reference_logprobs is not None
        torch.testing.assert_close(one.reference_logprobs, two.reference_logprobs)


def test_many_are_named_by_three_and_a_number() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_steps_without_anything_finite_end_the_run_at_last(
    make_learner: Any, language_model: LanguageModel
) -> None:
    """Ten in a row, as with updates; the weights are as they were."""
    before = [p.detach().clone() for p in language_model.model.parameters()]
    learner = make_learner({"name": "grpo"})
    group = _group(_trajectory(math.nan, 20), _trajectory(math.inf, 21))
    for step in range(1, 10):
        assert learner.learn([group], step) == {
            "samples": 0.0,
            "samples_with_signal": 0.0,
            "not_finite": 2.0,
        }
    with pytest.raises(NotFinite, match=r"10 updates in a row .* sums/7 \(reward\), sums/7 \(reward\)"):
        learner.learn([group], 10)
    assert all(map(torch.equal, before, language_model.model.parameters()))


def test_an_empty_group_is_refused(make_learner: Any) -> None:
    with pytest.raises(ValueError, match="the group of task '7' of 'sums' has no trajectories"):
        make_learner({"name": "grpo"}).learn([_group()], 1)


def test_skipped_updates_of_a_step_are_summed_and_spoil_no_mean(
    make_learner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of four updates are not finite: ``skipped`` is 2, the loss is that of the other two, each is named."""
    learner = make_learner({"name": "grpo"}, updates=4)
    real, calls = learner._objective.loss, []

    def loss(batch: Batch, outputs: Outputs, totals: Totals) -> tuple[torch.Tensor, Metrics]:
        calls.append(1)
        share, metrics = real(batch, outputs, totals)
        return share * (math.nan if len(calls) in (2, 3) else 1.0), metrics

    monkeypatch.setattr(learner._objective, "loss", loss)
    row = learner.learn([_group(*(_trajectory(float(i % 2), 20 + i) for i in range(4)))], 1)
    assert row["skipped"] == 2
    assert math.isfinite(row["loss"])
    assert learner.faults == ["an update was skipped, not finite: the loss of sums/7/"] * 2
    assert learner.learn([_group(_trajectory(1.0, 20), _trajectory(0.0, 21))], 2)["skipped"] == 0
    assert learner.faults == []


def test_the_penalty_of_ppo_is_between_two_log_probs_of_the_trainer(
    make_learner: Any, watch: Any, language_model: LanguageModel
) -> None:
    """With one update too, whatever the engine claims: with itself as the reference, the policy pays nothing."""
    for kl, filled in ((0.1, True), (0.0, False)):
        learner = make_learner({"name": "ppo", "gae_lambda": 1.0, "kl_coefficient": kl})
        seen = watch(learner)
        learner.learn([_group(_trajectory(1.0, 20), _trajectory(0.0, 30))], 1)
        for sample in seen[0]:
            assert (sample.old_logprobs is not None) is filled
            if sample.old_logprobs is not None:
                own, _ = token_logprobs(language_model.model, collate([(sample,)], 0))
                torch.testing.assert_close(sample.old_logprobs, own[0].detach())
            assert sample.returns is not None
            expected = 1.0 if int(sample.ids[2]) == 20 else 0.0
            assert sample.returns[sample.mask].tolist() == pytest.approx([expected, expected], abs=1e-5)


def _actor_critic(batch: Batch, outputs: Outputs, totals: Totals) -> tuple[torch.Tensor, Metrics]:
    assert outputs.values is not None
    policy, metrics = negative_log_likelihood(batch, outputs, totals)
    return policy + torch.where(batch.mask, outputs.values - 1, 0.0).square().sum() / totals.tokens, metrics


@pytest.fixture
def pair(model_folder: Path, make_language_model: Callable[[], LanguageModel]) -> tuple[Updater, Critic]:
    values = {"mix": [{"env": "e-v1"}], "model": {"path": str(model_folder)}, "optimizer": {"learning_rate": 1e-2}}
    recipe = ReinforcementRecipe.model_validate({**values, "auxiliary": {"critic": {"learning_rate": 1e-2}}})
    critic = Critic(recipe)
    models = AuxiliaryModels({"critic": critic})
    updater = Updater(make_language_model(), recipe.optimizer, temperature=1.0, total_updates=9, auxiliary=models)
    return updater, critic


def _all_weights(updater: Updater, critic: Critic) -> list[torch.Tensor]:
    parameters = [*updater._scorer.model.parameters(), *critic._optimizer.parameters]
    return [p.detach().clone() for p in parameters]


@pytest.mark.parametrize("where", ["loss", "policy", "critic"])
def test_an_update_is_taken_of_policy_and_critic_or_of_neither(
    pair: tuple[Updater, Critic], make_sample: MakeSample, where: str
) -> None:
    """Whichever is not finite, both stay as they were, no gradient is left, and the next update is taken."""
    updater, critic = pair
    units = as_units([make_sample([0, 1, 1])])
    before = _all_weights(updater, critic)

    def loss(batch: Batch, outputs: Outputs, totals: Totals) -> tuple[torch.Tensor, Metrics]:
        assert outputs.values is not None
        side = outputs.logprobs if where == "policy" else outputs.values
        if where != "loss":
            side.register_hook(lambda gradient: gradient * math.nan)
        share, metrics = _actor_critic(batch, outputs, totals)
        return share * (math.nan if where == "loss" else 1.0), metrics

    row = updater.update(units, loss)
    assert (row["skipped"], row["grad_norm"], "critic/grad_norm" in row) == (1.0, 0.0, False)
    named = {"loss": "the loss of g", "critic": "the gradient of the critic", "policy": "the gradient of model."}
    assert updater.fault.startswith(named[where])
    assert all(map(torch.equal, before, _all_weights(updater, critic)))
    assert all(parameter.grad is None for parameter in critic._optimizer.parameters)
    row = updater.update(units, _actor_critic)
    assert row["skipped"] == 0
    assert row["critic/grad_norm"] > 0


def test_a_mismatch_leaves_no_gradient_in_the_critic(
    pair: tuple[Updater, Critic], make_sample: MakeSample
) -> None:
    updater, critic = pair
    with pytest.raises(EngineMismatch):
        updater.update(as_units([make_sample([0, 1, 1])]), _actor_critic, mismatch_limit=1e-3)
    assert all(parameter.grad is None for parameter in critic._optimizer.parameters)


@pytest.mark.parametrize(("dtype", "rate"), [(torch.float32, 1e37), (torch.float16, 1e6)])
def test_a_step_that_breaks_a_weight_stops_the_run(dtype: torch.dtype, rate: float) -> None:
    """Also where the float32 copy is sound and its 16-bit form is not."""
    parameter = torch.nn.Parameter(torch.full((4,), -3.4e38 if dtype is torch.float32 else 1.0, dtype=dtype))
    optimizer = MasterAdamW([parameter], OptimizerConfig())
    parameter.grad = torch.ones_like(parameter)
    with pytest.raises(NotFinite, match=r"a step at learning rate 1e\+.. made weights that are not finite"):
        optimizer.step(rate)


def test_the_count_of_skipped_updates_survives_a_checkpoint(
    make_language_model: Callable[[], LanguageModel], make_sample: MakeSample
) -> None:
    """Nine before a kill and one after it are ten in a row."""

    def broken(batch: Batch, outputs: Outputs, totals: Totals) -> tuple[torch.Tensor, Metrics]:
        return outputs.logprobs.sum() * math.nan, {}

    first, second = (
        Updater(make_language_model(), OptimizerConfig(), temperature=1.0, total_updates=20) for _ in range(2)
    )
    units = as_units([make_sample([0, 1])])
    for _ in range(9):
        first.update(units, broken)
    second.restore(first.state())
    with pytest.raises(NotFinite, match="10 updates in a row"):
        second.update(units, broken)


def test_a_learner_is_told_of_what_is_missing_without_a_fault(make_learner: Callable[..., Learner]) -> None:
    """A failed episode is missing data, and nothing to warn of here."""
    failed = dataclasses.replace(
        _trajectory(0.0, 30), outcome=Outcome.failed(RuntimeError("sandbox died")), score=None
    )
    learner = make_learner({"name": "grpo"})
    row = learner.learn([_group(_trajectory(1.0, 20), _trajectory(0.0, 21), failed)], 1)
    assert (row["not_finite"], learner.faults) == (0.0, [])
