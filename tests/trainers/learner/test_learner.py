"""From groups to an update: what is missing counts nowhere, what has no signal changes nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSequenceClassification, LlamaConfig

from envgym.records import Message, Outcome, Score, Task, Trajectory, Turn, TurnTokens
from envgym.rollout.collector import Group
from envgym_trainers.batch import Sample, collate
from envgym_trainers.learner.learner import Learner
from envgym_trainers.learner.logprobs import token_logprobs
from envgym_trainers.learner.mismatch import EngineMismatch
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.objectives import Needs
from envgym_trainers.objectives.grpo import GRPO
from envgym_trainers.objectives.ops.reduction import Totals, sequence_mean
from envgym_trainers.recipe import ReinforcementRecipe

_TASK = Task(id="t", split="train", messages=())


def _trajectory(
    score: float | None,
    *,
    ids: Sequence[int] = (20, 21),
    outcome: Outcome | None = None,
    version: int = 0,
    seed: int = 0,
    role: str = "",
) -> Trajectory:
    tokens = TurnTokens(
        prompt_ids=[10, 11], completion_ids=list(ids), logprobs=[-1.0] * len(ids), policy_version=version
    )
    return Trajectory(
        env="e",
        task=_TASK,
        seed=seed,
        role=role,
        turns=[Turn(messages=(), action=Message(role="assistant", content=""), tokens=tokens)],
        outcome=outcome or Outcome.completed(),
        score=None if score is None else Score(value=score, accuracy=score),
    )


def _group(*trajectories: Trajectory) -> Group:
    return Group(env="e", task=_TASK, trajectories=list(trajectories))


def _advantage(sample: Sample) -> float:
    """Return the advantage, which is the same at every sampled token and 0 elsewhere."""
    assert sample.advantages is not None
    (value,) = set(sample.advantages[sample.mask].tolist())
    assert not sample.advantages[~sample.mask].any()
    return float(value)


def test_failed_episodes_are_in_neither_baseline_nor_loss(make_learner: Any, watch: Any) -> None:
    """Scores 1, 0 and a failure: ±(½)/(√½ + 1e-4), exactly as if the failure had never been."""
    learner = make_learner({"name": "grpo"})
    seen = watch(learner)
    failed = _trajectory(None, outcome=Outcome.failed(RuntimeError("sandbox died")))
    row = learner.learn([_group(_trajectory(1.0), failed, _trajectory(0.0))], 1)
    expected = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert sorted(map(_advantage, seen[0])) == pytest.approx([-expected, expected])
    assert row["samples"] == 2


def test_every_role_has_a_baseline_of_its_own(make_learner: Any, watch: Any) -> None:
    """Parents score 1 and 0; one has verifiers that score 10 and 30, the other has one that failed."""
    parents = [_trajectory(1.0), _trajectory(0.0)]
    parents[0].nested = [_trajectory(s, role="verifier", ids=(40, 41)) for s in (10.0, 30.0)]
    parents[1].nested = [_trajectory(None, role="verifier", outcome=Outcome.failed(RuntimeError("x")))]
    learner = make_learner({"name": "grpo"})
    seen = watch(learner)
    assert learner.learn([_group(*parents)], 1)["samples"] == 4
    for ids, deviation in ((20, 0.5), (40, 10.0)):
        expected = deviation / (math.sqrt(2) * deviation + 1e-4)
        advantages = sorted(_advantage(s) for s in seen[0] if int(s.ids[2]) == ids)
        assert advantages == pytest.approx([-expected, expected])


def test_an_equal_group_changes_nothing(make_learner: Any, language_model: LanguageModel) -> None:
    before = [p.detach().clone() for p in language_model.model.parameters()]
    row = make_learner({"name": "grpo"}).learn([_group(*(_trajectory(0.7) for _ in range(4)))], 1)
    assert row["samples"] == 4
    assert row["grad_norm"] == 0
    assert all(map(torch.equal, before, language_model.model.parameters()))


def test_a_step_without_samples_takes_no_update(make_learner: Any, watch: Any) -> None:
    learner = make_learner({"name": "grpo"})
    seen = watch(learner)
    failed = _trajectory(None, outcome=Outcome.failed(RuntimeError("x")))
    nothing = {"samples": 0.0, "samples_with_signal": 0.0, "not_finite": 0.0}
    assert learner.learn([_group(failed, failed)], 1) == nothing
    assert learner.learn([], 2) == nothing
    assert seen == []


def test_the_better_trajectory_becomes_likelier(make_learner: Any, language_model: LanguageModel) -> None:
    learner = make_learner({"name": "grpo"})
    good, bad = _trajectory(1.0, ids=(20, 21)), _trajectory(0.0, ids=(30, 31))

    def likelihood(ids: tuple[int, int]) -> float:
        with torch.no_grad():
            logits = language_model.model(input_ids=torch.tensor([[10, 11, *ids]])).logits[0]
        return sum(float(torch.log_softmax(logits[i], -1)[token]) for i, token in zip((1, 2), ids, strict=True))

    for trajectory, ids in ((good, (20, 21)), (bad, (30, 31))):
        tokens = trajectory.turns[0].tokens
        assert tokens is not None
        tokens.logprobs[:] = [likelihood(ids) / 2] * 2
    before = likelihood((20, 21)), likelihood((30, 31))
    learner.learn([_group(good, bad)], 1)
    assert likelihood((20, 21)) > before[0]
    assert likelihood((30, 31)) < before[1]


def test_the_random_control_never_reads_the_score(make_learner: Any, watch: Any) -> None:
    """The same trajectories with opposite scores get the same advantages, and some are not zero."""

    def advantages(scores: list[float]) -> list[float]:
        learner = make_learner({"name": "grpo"}, reward={"control": "random"})
        seen = watch(learner)
        learner.learn([_group(*(_trajectory(s, seed=i) for i, s in enumerate(scores)))], 1)
        return [_advantage(sample) for sample in seen[0]]

    first = advantages([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    assert first == advantages([0.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    assert any(first)


@pytest.mark.parametrize("objective", ["grpo", "dapo", "dpo", "ppo"])
def test_a_masked_member_is_as_if_it_had_never_been(objective: str, make_learner: Any, watch: Any) -> None:
    """Neither trained on nor in the baseline: the others' units are bit-equal to those of the group without it."""
    others = [_trajectory(1.0), _trajectory(0.25, ids=(30, 31), seed=1)]
    cut = _trajectory(0.0, ids=(40,), seed=2, outcome=Outcome.truncated("tokens"))
    found = []
    for members, truncated in (([*others, cut], "mask"), (others, "mask"), ([*others, cut], "penalise")):
        learner = make_learner({"name": objective}, truncated={"tokens": truncated})
        seen = watch(learner)
        learner.learn([_group(*members)], 1)
        found.append(sorted((tuple(s.ids.tolist()), tuple(s.advantages.tolist())) for s in seen[0]))
    assert found[0] == found[1] != found[2]


def test_updates_share_the_samples_out_and_staleness_is_told(make_learner: Any, watch: Any) -> None:
    """Five samples in two updates: 3 and 2, none twice. At step 4 the policy is at version 3."""
    learner = make_learner({"name": "grpo"}, updates=2)
    seen = watch(learner)
    members = [_trajectory(float(i % 2), ids=(20 + i,), version=3 - (i == 0)) for i in range(5)]
    row = learner.learn([_group(*members)], 4)
    assert sorted(map(len, seen)) == [2, 3]
    assert sorted(int(s.ids[2]) for part in seen for s in part) == [20, 21, 22, 23, 24]
    assert row["staleness_max"] == 1
    assert row["loss"] == 2.5


def test_a_penalty_needs_and_gets_the_reference_of_the_start(
    make_learner: Any, watch: Any, language_model: LanguageModel, make_language_model: Any
) -> None:
    """Reference log-probs are the first model's, however far the policy has moved."""
    learner = make_learner({"name": "grpo", "beta": 0.1})
    with torch.no_grad():
        language_model.model.get_input_embeddings().weight.mul_(2)
    seen = watch(learner)
    learner.learn([_group(_trajectory(1.0), _trajectory(0.0, ids=(30, 31, 32)))], 1)
    for sample in seen[0]:
        assert sample.reference_logprobs is not None
        expected, _ = token_logprobs(make_language_model().model, collate([(sample,)], 0))
        torch.testing.assert_close(sample.reference_logprobs[sample.mask], expected[0].detach()[sample.mask])


def _engine_said(trajectory: Trajectory, logprob: float) -> Trajectory:
    tokens = trajectory.turns[0].tokens
    assert tokens is not None
    tokens.logprobs[:] = [logprob] * len(tokens.logprobs)
    return trajectory


def _true_logprobs(language_model: LanguageModel, ids: Sequence[int]) -> list[float]:
    with torch.no_grad():
        logits = language_model.model(input_ids=torch.tensor([[10, 11, *ids]])).logits[0]
    return [float(torch.log_softmax(logits[1 + i], -1)[token]) for i, token in enumerate(ids)]


def test_the_engine_is_compared_with_the_trainer_and_not_with_itself(
    make_learner: Any, language_model: LanguageModel
) -> None:
    """An engine that tells the truth is at KL 0; one that is off by a nat is at e^d − d − 1 with d = ±1."""
    group = _group(_trajectory(1.0), _trajectory(0.0, ids=(30, 31)))
    for trajectory, ids in zip(group.trajectories, ((20, 21), (30, 31)), strict=True):
        tokens = trajectory.turns[0].tokens
        assert tokens is not None
        tokens.logprobs[:] = _true_logprobs(language_model, ids)
    frozen = {"optimizer": {"learning_rate": 1e-12}}
    assert make_learner({"name": "grpo"}, **frozen).learn([group], 1)["engine_kl_k3"] == pytest.approx(0, abs=1e-6)
    for trajectory in group.trajectories:
        tokens = trajectory.turns[0].tokens
        assert tokens is not None
        tokens.logprobs[:] = [value - 1 for value in tokens.logprobs]
    row = make_learner({"name": "grpo"}, **frozen).learn([group], 1)
    assert row["engine_kl_k3"] == pytest.approx(math.e - 2, rel=1e-3)


def test_the_importance_cap_of_a_recipe_changes_the_update(
    make_learner: Any, language_model: LanguageModel
) -> None:
    """On its own samples, an engine that claims far less than the truth doubles the gradient under a cap of 2."""
    norms = []
    for cap in (None, 2.0):
        claimed = [
            _engine_said(_trajectory(score, ids=ids), -50.0) for score, ids in ((1.0, (20, 21)), (0.0, (30, 31)))
        ]
        objective = {"name": "grpo"} | ({} if cap is None else {"importance_cap": cap})
        norms.append(make_learner(objective, optimizer={"learning_rate": 1e-12}).learn([_group(*claimed)], 1))
    assert norms[1]["grad_norm"] == pytest.approx(2 * norms[0]["grad_norm"], rel=1e-3)


def test_later_updates_of_a_step_are_compared_with_the_policy_before_the_first(make_learner: Any) -> None:
    """One update: the ratio is 1. Two: the second sees a policy that has moved since its old log-probs."""
    members = [_trajectory(float(i % 2), ids=(20 + i, 40 + i)) for i in range(4)]
    assert make_learner({"name": "grpo"}).learn([_group(*members)], 1)["ratio_max"] == 1.0
    row = make_learner({"name": "grpo"}, updates=2).learn([_group(*members)], 1)
    assert row["ratio_max"] != pytest.approx(1.0, abs=1e-3)


def test_a_control_hides_the_rewards_of_turns(make_learner: Any, watch: Any) -> None:
    """A coin in the place of the reward must not leave the truth in another column."""
    for reward, visible in (({}, True), ({"control": "random"}, False), ({"false_positives": 0.1}, False)):
        learner = make_learner({"name": "grpo"}, reward=reward)
        seen = watch(learner)
        trajectories = [_trajectory(1.0), _trajectory(0.0)]
        trajectories[0].turns[0].reward = 0.5
        learner.learn([_group(*trajectories)], 1)
        assert any(s.turn_rewards is not None for s in seen[0]) is visible


class _Judged(GRPO):
    """GRPO on the score of a reward model."""

    def needs(self) -> Needs:
        return Needs(auxiliary=frozenset({"reward"}))


def test_a_reward_model_decides_what_is_learnt(
    model_folder: Path, language_model: LanguageModel, watch: Any, tmp_path: Path
) -> None:
    """The environment scores all alike; the advantages are the reward model's."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_labels=1, pad_token_id=0,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    values = {"mix": [{"env": "e-v1"}], "model": {"path": str(model_folder)}}
    recipe = ReinforcementRecipe.model_validate({**values, "auxiliary": {"reward": {"path": str(tmp_path)}}})
    learner = Learner(recipe, _Judged(), language_model)
    seen = watch(learner)
    learner.learn([_group(_trajectory(1.0), _trajectory(1.0, ids=(30, 31, 32)))], 1)
    first, second = sorted(map(_advantage, seen[0]))
    assert first == -second != 0


def test_a_control_outranks_the_reward_model(
    model_folder: Path, language_model: LanguageModel, watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a coin, the model that scores is never asked."""
    values = {"mix": [{"env": "e-v1"}], "model": {"path": str(model_folder)}, "reward": {"control": "random"}}
    learner = Learner(ReinforcementRecipe.model_validate(values), GRPO(), language_model)
    monkeypatch.setattr(learner._auxiliary, "rescore", lambda *_: pytest.fail("the reward model was asked"))
    watch(learner)
    assert learner.learn([_group(_trajectory(1.0), _trajectory(0.0))], 1)["samples"] == 2


def test_a_role_without_a_wrong_label_is_not_trained_on(make_learner: Any, watch: Any) -> None:
    """Its reward is missing, so it has no units, whatever the objective does with rewards."""
    parents = [_trajectory(1.0), _trajectory(0.0)]
    for parent, label in zip(parents, ([0.0, 0.0], [1.0, 1.0]), strict=True):
        parent.artifacts["control/wrong_label"] = list(label)
        parent.nested = [_trajectory(1.0, role="verifier", ids=(40, 41))]
    learner = make_learner({"name": "ppo"}, reward={"control": "wrong_label"})
    seen = watch(learner)
    learner.learn([_group(*parents)], 1)
    assert {int(sample.ids[2]) for sample in seen[0]} == {20}


def test_an_engine_off_by_a_third_of_a_nat_is_caught_before_the_first_update(
    make_learner: Any, language_model: LanguageModel
) -> None:
    """Exact log-probs pass; the same plus 0.3 stop the run, and the weights are as they were."""
    before = [p.detach().clone() for p in language_model.model.parameters()]
    for off in (0.0, 0.3):
        members = []
        for score, ids in ((1.0, (20, 21)), (0.0, (30, 31))):
            member = _trajectory(score, ids=ids)
            assert member.turns[0].tokens is not None
            member.turns[0].tokens.logprobs[:] = [v + off for v in _true_logprobs(language_model, ids)]
            members.append(member)
        learner = make_learner({"name": "grpo"}, mismatch_limit=0.1, optimizer={"learning_rate": 1e-12})
        if not off:
            row = learner.learn([_group(*members)], 1)
            assert row["engine_gap"] < 1e-4
            assert row["engine_off_share"] == 0
            continue
        with pytest.raises(EngineMismatch, match=r"0\.300 nats off .*mismatch_limit = 0\.1"):
            learner.learn([_group(*members)], 1)
        assert learner.updater.updates == 0
        for a, b in zip(before, language_model.model.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


def test_what_older_weights_sampled_is_not_a_mismatch(make_learner: Any) -> None:
    """At step 4 the policy is at version 3; its own samples are compared, those of version 2 are not."""
    for version, gap in ((2, 0.0), (3, 3.5)):
        members = [_trajectory(float(i), ids=(20 + i,), version=version) for i in range(2)]
        row = make_learner({"name": "grpo"}).learn([_group(*members)], 4)
        assert row["engine_gap"] == pytest.approx(gap, abs=2.0)
        assert (row["engine_gap"] == 0) == (version == 2)


def test_passes_over_a_batch_make_the_clip_act(make_learner: Any) -> None:
    members = [_trajectory(float(i % 2), ids=(20 + i, 40 + i)) for i in range(4)]
    clipped = {}
    for epochs in (1, 4):
        learner = make_learner({"name": "grpo"}, epochs=epochs, optimizer={"learning_rate": 0.1})
        row = learner.learn([_group(*members)], 1)
        clipped[epochs] = row["clip_low"] + row["clip_high"]
        assert learner.updater.updates == epochs
    assert clipped[1] == 0 < clipped[4]


def test_a_rewritten_trajectory_counts_once(make_learner: Any, watch: Any) -> None:
    """Two samples of one trajectory share its weight; the batch has two trajectories, not three."""
    forked = _trajectory(1.0, ids=(20, 21, 22))
    forked.turns.append(
        Turn(
            messages=(),
            action=Message(role="assistant", content=""),
            tokens=TurnTokens(
                prompt_ids=[10, 12], completion_ids=[23], logprobs=[-1.0], policy_version=0, fork=True
            ),
        )
    )
    learner = make_learner({"name": "grpo"})
    seen = watch(learner)
    learner.learn([_group(forked, _trajectory(0.0, ids=(30,)))], 1)
    (samples,) = seen
    assert sorted((s.model_tokens, s.trajectory_tokens) for s in samples) == [(1, 1), (1, 4), (3, 4)]
    units = [(sample,) for sample in samples]
    totals = Totals.of(units)
    assert (totals.tokens, totals.sequences) == (5, 2)
    batch = collate(units, 0)
    ones = torch.ones_like(batch.advantages)
    assert sequence_mean(ones, batch.mask, totals, batch.lengths) == pytest.approx(1.0)
    parts = [collate([unit], 0) for unit in units]
    apart = [float(sequence_mean(torch.ones(b.mask.shape), b.mask, totals, b.lengths)) for b in parts]
    by_length = dict(zip([(s.model_tokens, s.trajectory_tokens) for s in samples], apart, strict=True))
    assert by_length == pytest.approx({(1, 1): 1 / 2, (1, 4): 1 / 8, (3, 4): 3 / 8})


@pytest.mark.parametrize("objective", ["grpo", "dapo", "dpo", "ppo"])
def test_survivors_are_credited_as_if_the_failed_had_never_been(
    objective: str, make_learner: Any, watch: Any
) -> None:
    """30% lost: the units of the others are bit-equal to those of the group made of the others alone."""
    rng = random.Random(objective)
    scores = [rng.random() for _ in range(20)]
    lost = set(rng.sample(range(20), 6))
    members = [_trajectory(s, ids=(20 + i, 50 + i % 3), seed=i) for i, s in enumerate(scores)]
    survivors = [m for i, m in enumerate(members) if i not in lost]
    for i in lost:
        members[i] = _trajectory(None, ids=(20 + i,), outcome=Outcome.failed(TimeoutError("stalled")))
    found = []
    for group in (_group(*members), _group(*survivors)):
        learner = make_learner({"name": objective})
        seen = watch(learner)
        learner.learn([group], 1)
        found.append(sorted((tuple(s.ids.tolist()), tuple(s.advantages.tolist())) for s in seen[0]))
    assert found[0] == found[1]
    assert any(any(advantages) for _, advantages in found[0])


class _Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return func(*args, **(kwargs or {}))


def test_gradient_checkpointing_keeps_less_and_computes_again(
    make_learner: Any, language_model: LanguageModel
) -> None:
    """Off keeps most, selective less and makes no product twice, full makes some twice; the gradient is one."""
    start = {name: value.clone() for name, value in language_model.model.state_dict().items()}
    group = _group(_trajectory(1.0), _trajectory(0.0, ids=(30, 31)))
    make_learner({"name": "grpo"}).learn([group], 1)  # what is asked of a model once is asked here
    kept: dict[str, int] = {}
    products: dict[str, int] = {}
    norms: dict[str, float] = {}
    for how in ("off", "selective", "full"):
        language_model.model.load_state_dict(start)
        learner = make_learner({"name": "grpo"}, optimizer={"gradient_checkpointing": how})
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), _Products() as counter:
            norms[how] = learner.learn([group], 1)["grad_norm"]
        kept[how], products[how] = sum(sizes), counter.count
    assert kept["off"] > kept["selective"] >= kept["full"]
    assert products["off"] == products["selective"] < products["full"]
    assert norms["selective"] == pytest.approx(norms["off"], rel=1e-4)
    assert norms["full"] == pytest.approx(norms["off"], rel=1e-4)
