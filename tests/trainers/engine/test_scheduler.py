"""Batches stay dense, and moving rows about changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from envgym_trainers.engine.sampling import choose
from envgym_trainers.engine.scheduler import Scheduler
from envgym_trainers.engine.sequences import Row, passes

BUDGET = 8


def admitted(scheduler: Scheduler, prompts: Iterable[list[int]]) -> list[Row]:
    """Rows that hold a slot and have run nothing; each samples by numbers of its own."""
    rows = []
    for i, ids in enumerate(prompts):
        rows.append(Row(ids=ids, budget=BUDGET, uniform=np.random.default_rng(i).random(BUDGET)))
        scheduler.admit(rows[-1])
    return rows


def rows_of(scheduler: Scheduler, count: int) -> list[Row]:
    """Admitted rows with prompts of their own."""
    return admitted(scheduler, ([8 + i, *range(9, 10 + i)] for i in range(count)))


def check(model: PreTrainedModel, rows: Iterable[Row]) -> None:
    """What the rows report is what a plain forward pass says of each token that they sampled."""
    for row in rows:
        logprobs = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        first = len(row.ids) - len(row.sampled)
        expected = [float(logprobs[first + i - 1, token]) for i, token in enumerate(row.sampled)]
        assert row.logprobs == pytest.approx(expected, abs=1e-5)


@pytest.fixture
def passes_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scheduler], list[int]]:
    """Watch a scheduler; the list gets how many new tokens each pass runs, padding not counted."""

    def watch(scheduler: Scheduler) -> list[int]:
        run: list[int] = []
        real = scheduler._run

        def spy(new: list[list[int]], rows: list[Row]) -> torch.Tensor:
            run.append(sum(map(len, new)))
            return real(new, rows)

        monkeypatch.setattr(scheduler, "_run", spy)
        return run

    return watch


@torch.inference_mode()
def test_rows_that_sample_move_together_and_the_others_keep_their_past(model: PreTrainedModel) -> None:
    """Three of twelve go on, in the highest slots; then the nine that rested go on where they were."""
    scheduler = Scheduler(model, slots=12, capacity=40, stop_ids=frozenset())
    rows = rows_of(scheduler, 12)
    scheduler.extend(rows)
    late = rows[9:]
    scheduler.decode(late)
    assert sorted(row.slot for row in late) == [0, 1, 2]
    assert sorted(row.slot for row in rows) == list(range(12))
    for _ in range(2):
        scheduler.decode(rows[:9])
        scheduler.decode(late)
    check(model, rows)


@torch.inference_mode()
def test_a_row_moves_to_a_free_slot_and_frees_its_own(model: PreTrainedModel) -> None:
    scheduler = Scheduler(model, slots=6, capacity=40, stop_ids=frozenset())
    rows = rows_of(scheduler, 6)
    scheduler.extend(rows)
    for row in rows[:5]:
        scheduler.release(row)
    scheduler.decode(rows[5:])
    assert rows[5].slot == 0
    assert scheduler.free_slots == 5
    newcomers = rows_of(scheduler, 5)
    assert sorted(row.slot for row in newcomers) == [1, 2, 3, 4, 5]
    scheduler.extend(newcomers)
    scheduler.decode([*newcomers, rows[5]])
    check(model, [*newcomers, rows[5]])


@torch.inference_mode()
def test_what_prompts_have_in_common_is_run_once(
    model: PreTrainedModel, passes_run: Callable[[Scheduler], list[int]]
) -> None:
    """Forty tokens of instructions, three tasks of two samples each; a fourth task comes a turn later."""
    scheduler = Scheduler(model, slots=8, capacity=60, stop_ids=frozenset())
    run = passes_run(scheduler)
    rows = admitted(scheduler, ([*range(8, 48), 50 + i // 2, 60, 61 + i // 2] for i in range(8)))
    scheduler.extend(rows[:6])
    assert run == [43, 6], "the first prompt whole, then three tokens of each of two"
    scheduler.decode(rows[:6])
    scheduler.extend(rows[6:])
    assert run == [43, 6, 3]
    scheduler.decode(rows)
    check(model, rows)


@torch.inference_mode()
def test_conversations_that_went_on_alike_are_run_once(
    model: PreTrainedModel, passes_run: Callable[[Scheduler], list[int]]
) -> None:
    """Four samples of one task; three wrote the same call and got the same answer, the fourth another call."""
    scheduler = Scheduler(model, slots=4, capacity=60, stop_ids=frozenset())
    run = passes_run(scheduler)
    rows = admitted(scheduler, ([*range(8, 28)] for _ in range(4)))
    for row in rows[:3]:
        row.uniform = rows[0].uniform
    rows[3].temperature = 3.0
    scheduler.extend(rows)
    assert len({row.ids[-1] for row in rows[:3]}) == 1
    assert rows[3].ids[-1] != rows[0].ids[-1]
    for row in rows:
        row.ids += [30, 31]
        row.sampled, row.logprobs, row.temperature = [], [], 1.0
    scheduler.extend(rows)
    assert run == [20, 6], "the sampled token and the answer's two: once for three rows, once for the fourth"
    check(model, rows)


@torch.inference_mode()
def test_nothing_is_borrowed_from_other_weights(model: PreTrainedModel) -> None:
    """A row that rests since before an update holds stale keys."""
    scheduler = Scheduler(model, slots=2, capacity=60, stop_ids=frozenset())
    old, new = (Row(ids=[*range(8, 48), 50 + i], budget=BUDGET, uniform=np.full(BUDGET, 0.5)) for i in range(2))
    old.version, new.version = 0, 1
    scheduler.admit(old)
    scheduler.extend([old])
    for parameter in model.parameters():
        parameter.mul_(1.1)
    scheduler.admit(new)
    scheduler.extend([new])
    check(model, [new])


def test_short_prompts_do_not_wait_in_the_padding_of_long_ones() -> None:
    """One row of 300 tokens and sixty of 10 are two passes, not one of 61 times 300 tokens."""
    groups = [[Row(ids=[1] * 300)], *([Row(ids=[1] * 10)] for _ in range(60))]
    assert [len(batch) for batch in passes(groups)] == [1, 60]
    assert len(list(passes(groups[1:]))) == 1


@torch.inference_mode()
def test_every_tensor_of_a_pass_is_where_the_model_is(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device stands for a GPU: what is computed there refuses company from the CPU."""
    monkeypatch.setattr(Scheduler, "_prove", lambda self: None)
    monkeypatch.setattr("envgym_trainers.engine.scheduler.has_plain_head", lambda model: True)
    scheduler = Scheduler(model.to("meta"), slots=4, capacity=40, stop_ids=frozenset())
    chosen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(logits: torch.Tensor, uniform: torch.Tensor, temperature: torch.Tensor) -> Any:
        chosen.append(choose(logits, uniform, temperature))
        return torch.full((len(logits),), 9), torch.zeros(len(logits))

    monkeypatch.setattr("envgym_trainers.engine.scheduler.choose", keep)
    rows = admitted(scheduler, [[8, 9], [8, 9], [10, 11, 12]])
    scheduler.extend(rows)
    scheduler.decode(rows)
    scheduler.decode(rows[2:])  # moves a row
    assert [tensor.device.type for pair in chosen for tensor in pair] == ["meta"] * 6
