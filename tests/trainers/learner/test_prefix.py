"""What the micro-batches of a group share runs once, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from envgym_trainers.batch import Batch, Outputs, Sample, Unit, as_units, collate
from envgym_trainers.learner.packing import pack
from envgym_trainers.learner.prefix import by_group, shared_ids
from envgym_trainers.learner.updater import Updater
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.objectives import Metrics
from envgym_trainers.objectives.ops.reduction import Totals
from envgym_trainers.recipe import OptimizerConfig
from envgym_trainers.stages.sft import negative_log_likelihood

MakeModel = Callable[[], LanguageModel]
PROMPT = list(range(3, 43))


def sample(tail: Sequence[int], *, group: str = "g", prompt: Sequence[int] = PROMPT) -> Sample:
    ids = torch.tensor([*prompt, *tail])
    mask = torch.arange(len(ids)) >= len(prompt)
    return Sample(ids=ids, mask=mask, logprobs=ids.float(), group=group, version=0)


def group_of(count: int, **options: Any) -> list[Unit]:
    return as_units([sample([60 + i, 7, 8 + i, *[9] * i], **options) for i in range(count)])


def run(
    language_model: LanguageModel, units: Sequence[Unit], tokens: int, how: str = "off", loss: Any = None
) -> tuple[dict[str, float], dict[int, Tensor], list[int]]:
    """Return metrics and gradients of an update, and how many tokens each forward pass ran."""
    config = OptimizerConfig.model_validate(
        {"learning_rate": 1e-9, "micro_batch_tokens": tokens, "gradient_checkpointing": how, "clip_norm": 1e9}
    )
    model = language_model.model.double()
    updater = Updater(language_model, config, temperature=1.0, total_updates=1)
    gradients: dict[int, Tensor] = {}
    lengths: list[int] = []
    embedding: Any = model.get_input_embeddings()

    def count(_: Any, arguments: Any, made: Tensor) -> None:
        if made.requires_grad:  # or else the model is asked what it can do
            lengths.append(arguments[0].numel())

    def note(number: int, parameter: Tensor) -> None:
        if parameter.grad is not None:
            gradients[number] = parameter.grad.clone()

    hooks = [
        embedding.register_forward_hook(count),
        *(p.register_post_accumulate_grad_hook(partial(note, i)) for i, p in enumerate(model.parameters())),
    ]
    try:
        metrics = updater.update(units, loss or negative_log_likelihood)
    finally:
        for hook in hooks:
            hook.remove()
    return metrics, gradients, lengths


@pytest.mark.parametrize("how", ["off", "selective", "full"])
def test_gradients_are_those_of_one_micro_batch(make_language_model: MakeModel, how: str) -> None:
    """In float64: a group over several micro-batches, beside another group, with and without checkpointing."""
    units = group_of(7) + group_of(2, group="other", prompt=PROMPT[::-1])
    whole, expected, _ = run(make_language_model(), units, 10_000)
    parts, found, lengths = run(make_language_model(), units, 120, how)
    assert lengths[0] == len(PROMPT) - 1, "the prompt ran first, but for its last token"
    assert parts == pytest.approx(whole, rel=1e-9)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("how", ["off", "selective"])
def test_what_branches_share_after_the_prompt_is_seen_behind_it(make_language_model: MakeModel, how: str) -> None:
    """Three levels: the group's start runs first, a branch's start is a row of its own, and its samples go on."""
    start = PROMPT * 3
    branches = [[*start, *[first, 51, 52, 53] * 40] for first in (50, 54)]
    tails = [[60, i, 7] for i in range(4)]
    units = as_units([sample(tail, prompt=branch) for branch in branches for tail in tails])
    _, expected, _ = run(make_language_model(), units, 10_000)
    _, found, lengths = run(make_language_model(), units, 1200, how)
    assert lengths[0] == len(start)
    assert len(lengths) == 3, "the start, and two micro-batches"
    rows = pack(collate(units[:4], 0), len(start))
    assert rows is not None
    assert [part.ahead for part in rows.rows.parts] == [0, 161], "the first token after it is alike, too"
    torch.testing.assert_close(found, expected)


def test_16_bit_models_take_prompts_too(make_language_model: MakeModel) -> None:
    """With checkpointing, which sees every operation of their attention; to the precision that they have."""
    norms = []
    for tokens in (10_000, 110):
        language_model = make_language_model()
        language_model.model.bfloat16()
        config = OptimizerConfig.model_validate({"micro_batch_tokens": tokens, "clip_norm": 1e9})
        updater = Updater(language_model, config, temperature=1.0, total_updates=1)
        norms.append(updater.update(group_of(6), negative_log_likelihood)["grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=0.02)


def test_a_prompt_runs_once(make_language_model: MakeModel) -> None:
    units = group_of(6)
    _, _, lengths = run(make_language_model(), units, 110)
    own = sum(len(unit[0]) for unit in units) - 6 * (len(PROMPT) - 1)
    assert sum(lengths[1:]) <= own + 3 * max(map(len, (unit[0] for unit in units))), "padding, but no prompt"
    assert lengths[0] == len(PROMPT) - 1
    assert max(lengths[1:]) < len(PROMPT)


def test_a_loss_that_fails_drops_the_gradient(make_language_model: MakeModel) -> None:
    """The next update starts afresh."""
    calls = iter(range(3))

    def failing(batch: Batch, outputs: Outputs, totals: Totals) -> tuple[Tensor, Metrics]:
        if next(calls) == 1:
            raise RuntimeError("stopped")
        return negative_log_likelihood(batch, outputs, totals)

    language_model = make_language_model()
    with pytest.raises(RuntimeError, match="stopped"):
        run(language_model, group_of(6), 110, loss=failing)
    language_model.model.zero_grad()
    _, found, _ = run(language_model, group_of(6), 110)
    _, expected, _ = run(make_language_model(), group_of(6), 110)
    torch.testing.assert_close(found, expected)


def test_micro_batches_of_a_group_stay_together() -> None:
    """One of two groups stands alone: its samples share less than each group's own."""
    first, mixed, last = group_of(2), [*group_of(1), *group_of(1, group="h")], group_of(2, group="h")
    assert by_group([first, first, mixed, last]) == [[first, first], [mixed], [last]]


@pytest.mark.parametrize(
    ("packs", "length"),
    [
        ([group_of(3), group_of(3)], len(PROMPT) - 1),
        ([group_of(6)], 0),  # one micro-batch shares within itself
        ([as_units([sample([1], prompt=PROMPT)]), as_units([sample([1], prompt=PROMPT[::-1])])], 0),
        ([as_units([sample([1] * 90, prompt=[5, 6])]) for _ in range(2)], 0),  # not worth a pass of its own
        ([as_units([sample([1], prompt=PROMPT)]), as_units([sample([1], prompt=PROMPT[:30])])], 29),
    ],
)
def test_only_what_all_start_with_and_nobody_sampled_is_shared(packs: list[list[Unit]], length: int) -> None:
    assert shared_ids(packs).tolist() == PROMPT[:length]
