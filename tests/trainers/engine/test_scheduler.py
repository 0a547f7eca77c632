"""Batches stay dense, and moving rows about changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from envgym_trainers.engine.cache import Row
from envgym_trainers.engine.interface import SamplingParams
from envgym_trainers.engine.sampling import choose
from envgym_trainers.engine.scheduler import Scheduler
from envgym_trainers.engine.sequences import passes

BUDGET = 8
MEMORY = 2**24


def never(row: Row) -> bool:
    return False


def admitted(scheduler: Scheduler, prompts: Iterable[list[int]]) -> list[Row]:
    """Rows that have room and have run nothing; each samples by numbers of its own."""
    rows = []
    for i, ids in enumerate(prompts):
        rows.append(Row(ids=ids, uniform=np.random.default_rng(i).random(BUDGET)))
        assert scheduler.reserve(rows[-1], len(ids) + BUDGET)
    return rows


def rows_of(scheduler: Scheduler, count: int) -> list[Row]:
    """Rows with prompts of their own."""
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
    """Watch a scheduler; the list gets how many new tokens each pass runs."""

    def watch(scheduler: Scheduler) -> list[int]:
        run: list[int] = []
        real = scheduler._run

        def spy(rows: list[Row]) -> torch.Tensor:
            run.append(sum(len(row.ids) - row.cached for row in rows))
            return real(rows)

        monkeypatch.setattr(scheduler, "_run", spy)
        return run

    return watch


@torch.inference_mode()
def test_rows_that_sample_move_together_and_the_others_keep_their_past(model: PreTrainedModel) -> None:
    """Three of twelve go on, in the highest slots; then the nine that rested go on where they were."""
    scheduler = Scheduler(model, memory=MEMORY, capacity=40, ends=never)
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
    scheduler = Scheduler(model, memory=MEMORY, capacity=40, ends=never)
    rows = rows_of(scheduler, 6)
    scheduler.extend(rows)
    for row in rows[:5]:
        scheduler.release(row)
    scheduler.decode(rows[5:])
    assert rows[5].slot == 0
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
    scheduler = Scheduler(model, memory=MEMORY, capacity=60, ends=never)
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
    scheduler = Scheduler(model, memory=MEMORY, capacity=60, ends=never)
    run = passes_run(scheduler)
    rows = admitted(scheduler, ([*range(8, 28)] for _ in range(4)))
    for row in rows[:3]:
        row.uniform = rows[0].uniform
    rows[3].params = SamplingParams(max_tokens=BUDGET, temperature=3.0)
    scheduler.extend(rows)
    assert len({row.ids[-1] for row in rows[:3]}) == 1
    assert rows[3].ids[-1] != rows[0].ids[-1]
    for row in rows:
        row.ids += [30, 31]
        row.sampled, row.logprobs, row.params = [], [], SamplingParams(max_tokens=BUDGET)
    scheduler.extend(rows)
    assert run == [20, 6], "the sampled token and the answer's two: once for three rows, once for the fourth"
    check(model, rows)


@torch.inference_mode()
def test_nothing_is_borrowed_from_other_weights(model: PreTrainedModel) -> None:
    """A row that rests since before an update holds stale keys."""
    scheduler = Scheduler(model, memory=MEMORY, capacity=60, ends=never)
    old, new = (Row(ids=[*range(8, 48), 50 + i], uniform=np.full(BUDGET, 0.5)) for i in range(2))
    old.version, new.version = 0, 1
    scheduler.reserve(old, 50)
    scheduler.extend([old])
    for parameter in model.parameters():
        parameter.mul_(1.1)
    scheduler.reserve(new, 50)
    scheduler.extend([new])
    check(model, [new])


def test_a_pass_runs_a_bounded_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that is longer than the bound runs by itself."""
    monkeypatch.setattr("envgym_trainers.engine.sequences._PASS_TOKENS", 40)
    groups = [[Row(ids=[1] * count)] for count in (30, 10, 1, 50, 20, 20)]
    assert [[len(group[0].ids) for group in batch] for batch in passes(groups)] == [[30, 10], [1], [50], [20, 20]]


@torch.inference_mode()
def test_every_tensor_of_a_pass_is_where_the_model_is(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device stands for a GPU: what is computed there refuses company from the CPU."""
    monkeypatch.setattr(Scheduler, "_prove", lambda self, model: 64)
    scheduler = Scheduler(model.to("meta"), memory=MEMORY, capacity=40, ends=never)
    chosen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(logits: torch.Tensor, uniform: torch.Tensor, params: list[SamplingParams]) -> Any:
        chosen.append(choose(logits, uniform, params))
        return torch.full((len(logits),), 9), torch.zeros(len(logits))

    monkeypatch.setattr("envgym_trainers.engine.scheduler.choose", keep)
    rows = admitted(scheduler, [[8, 9], [8, 9], [10, 11, 12]])
    scheduler.extend(rows)
    scheduler.decode(rows)
    scheduler.decode(rows[2:])  # moves a row
    assert [tensor.device.type for pair in chosen for tensor in pair] == ["meta"] * 6
