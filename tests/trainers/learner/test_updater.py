"""An optimizer step: micro-batches add up, bad gradients are not applied, the rate follows its schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from envgym_trainers.batch import Batch, Outputs, Sample, as_units
from envgym_trainers.learner.faults import NotFinite
from envgym_trainers.learner.updater import Updater
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.objectives import Metrics
from envgym_trainers.objectives.ops.reduction import Totals
from envgym_trainers.recipe import OptimizerConfig
from envgym_trainers.stages.sft import negative_log_likelihood

MakeSample = Callable[..., Sample]
MakeModel = Callable[[], LanguageModel]


def _updater(language_model: LanguageModel, total: int = 10, **values: object) -> Updater:
    config = OptimizerConfig.model_validate({"learning_rate": 1e-2, **values})
    return Updater(language_model, config, temperature=1.0, total_updates=total)


def _weights(language_model: LanguageModel) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in language_model.model.parameters()]


def _not_finite(batch: Batch, outputs: Outputs, totals: Totals) -> tuple[torch.Tensor, Metrics]:
    return (outputs.logprobs * float("nan")).sum(), {}


def test_micro_batches_add_up(make_language_model: MakeModel, make_sample: MakeSample) -> None:
    """One forward pass or one for each sample: the same loss and the same weights afterwards."""
    samples = [make_sample([0] * n + [1] * m, seed=n) for n, m in ((1, 3), (4, 1), (2, 6))]
    found = []
    for tokens in (10_000, 1):
        language_model = make_language_model()
        row = _updater(language_model, micro_batch_tokens=tokens).update(
            as_units(samples), negative_log_likelihood
        )
        found.append((row, _weights(language_model)))
    (one, first), (many, second) = found
    assert one == pytest.approx(many, rel=1e-4)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)  # Adam divides by the gradient itself


def test_learning_lowers_the_loss(make_language_model: MakeModel, make_sample: MakeSample) -> None:
    updater = _updater(make_language_model())
    rows = [updater.update([(make_sample([0, 1, 1, 1]),)], negative_log_likelihood) for _ in range(10)]
    assert rows[-1]["loss"] < rows[0]["loss"] - 1


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(
    make_language_model: MakeModel, make_sample: MakeSample
) -> None:
    """At the first update, when the optimizer has no state yet, and later; the next good one counts again."""
    language_model = make_language_model()
    updater = _updater(language_model)
    samples = [make_sample([0, 1, 1])]
    for _ in range(2):
        before = _weights(language_model)
        row = updater.update(as_units(samples), _not_finite)
        assert (row["skipped"], row["grad_norm"]) == (1.0, 0.0)
        assert all(map(torch.equal, before, _weights(language_model)))
        row = updater.update(as_units(samples), negative_log_likelihood)
        assert row["skipped"] == 0.0
        assert row["grad_norm"] > 0
        assert not all(map(torch.equal, before, _weights(language_model)))


@pytest.mark.parametrize(("how", "times"), [("off", 0), ("selective", 2), ("full", 2)])
def test_memory_is_released_in_each_micro_batch_unless_it_is_plenty(
    make_language_model: MakeModel,
    make_sample: MakeSample,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    times: int,
) -> None:
    """To get it again takes time, which ``off`` does not pay."""
    calls: list[int] = []
    monkeypatch.setattr("envgym_trainers.learner.logprobs.release_memory", lambda: calls.append(1))
    updater = _updater(make_language_model(), gradient_checkpointing=how, micro_batch_tokens=3)
    updater.update(as_units([make_sample([0, 1, 1]), make_sample([0, 1, 0])]), negative_log_likelihood)
    assert len(calls) == times


def test_the_rate_warms_up_and_falls(make_language_model: MakeModel, make_sample: MakeSample) -> None:
    """Warm-up over 2 updates: 1/3, 2/3, 1; falling to 0 over 4: 1, 3/4, 2/4, 1/4; their product times 0.01."""
    updater = _updater(make_language_model(), total=4, warmup_steps=2, decay="linear")
    rates = [updater.update([(make_sample([0, 1]),)], negative_log_likelihood)["learning_rate"] for _ in range(4)]
    assert rates == pytest.approx([0.01 / 3, 0.01 * 2 / 3 * 3 / 4, 0.01 * 2 / 4, 0.01 / 4])
    groups = updater.state()["optimizer"]["adamw"]["param_groups"]
    assert [group["lr"] for group in groups] == pytest.approx([0.0025, 0.0025])


def test_the_gradient_is_clipped(make_language_model: MakeModel, make_sample: MakeSample) -> None:
    """The norm is reported as it was before."""
    row = _updater(make_language_model(), clip_norm=1e-9).update(
        [(make_sample([0, 1, 1]),)], negative_log_likelihood
    )
    assert row["grad_norm"] > 1e-3


def test_what_was_not_finite_is_named_and_ends_the_run_at_last(
    make_language_model: MakeModel, make_sample: MakeSample
) -> None:
    """The group whose loss is not a number is named; ten updates in a row are given up, the weights untouched."""
    language_model = make_language_model()
    before = _weights(language_model)
    updater = _updater(language_model)
    sample = dataclasses.replace(make_sample([0, 1]), group="sums/7")
    for _ in range(9):
        assert updater.update([(sample,)], _not_finite)["skipped"] == 1.0
        assert updater.fault == "the loss of sums/7"
    with pytest.raises(NotFinite, match="10 updates in a row .* the loss of sums/7"):
        updater.update([(sample,)], _not_finite)
    assert all(map(torch.equal, before, _weights(language_model)))


def test_a_gradient_overflow_names_the_parameter(make_language_model: MakeModel, make_sample: MakeSample) -> None:
    language_model = make_language_model()
    name, parameter = next(iter(language_model.model.named_parameters()))
    parameter.register_hook(lambda gradient: gradient * float("inf"))
    updater = _updater(language_model)
    assert updater.update([(make_sample([0, 1]),)], negative_log_likelihood)["skipped"] == 1.0
    assert updater.fault == f"the gradient of {name}"


def test_decay_spares_norms_and_biases(make_language_model: MakeModel, make_sample: MakeSample) -> None:
    """With no gradient to speak of, decay alone moves the matrices; what has one dimension stays."""
    language_model = make_language_model()
    before = {name: p.detach().clone() for name, p in language_model.model.named_parameters()}

    def nothing(batch: Batch, outputs: Outputs, totals: Totals) -> tuple[torch.Tensor, Metrics]:
        return outputs.logprobs.sum() * 0.0, {}

    _updater(language_model, weight_decay=0.5).update([(make_sample([0, 1]),)], nothing)
    moved = {n: not torch.equal(p, before[n]) for n, p in language_model.model.named_parameters()}
    assert {n for n, m in moved.items() if m} == {n for n, p in before.items() if p.ndim > 1}
    assert any("norm" in name for name in moved)
