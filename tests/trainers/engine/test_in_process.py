"""The engine samples from the model's own distribution, whatever else it is doing."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LlamaModel,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
)

from envgym.errors import PolicyError, UserError
from envgym_trainers.engine.cache import Row
from envgym_trainers.engine.in_process import InProcessEngine
from envgym_trainers.engine.interface import Sampled, SamplingParams
from envgym_trainers.engine.scheduler import Scheduler
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import ModelConfig, load_model

Start = Callable[..., InProcessEngine]
Expected = Callable[..., list[float]]
STOP = 7
MEMORY = 2**24


def never(row: Row) -> bool:
    return False


def _prompts(seed: int, turns: int = 3) -> list[list[int]]:
    """Prompts of uneven length without the stop id."""
    rng = random.Random(seed)
    return [[rng.randrange(8, 97) for _ in range(rng.randint(1, 9))] for _ in range(turns)]


def _reported(turns: list[tuple[list[int], Sampled]]) -> list[float]:
    return [value for _, sampled in turns for value in sampled.logprobs]


async def test_logprobs_are_those_of_a_plain_forward_pass(
    any_model: PreTrainedModel, start: Start, converse: Any, expected_logprobs: Expected
) -> None:
    """Six conversations of three turns, two of them from the same prompt, share four slots."""
    engine = start(any_model)
    plans = [_prompts(i) for i in (0, 0, 1, 2, 3, 4)]
    jobs = [converse(engine.open(), plan, seed=10 * i, temperature=0.8) for i, plan in enumerate(plans)]
    for turns in await asyncio.gather(*jobs):
        assert _reported(turns) == pytest.approx(expected_logprobs(any_model, turns, 0.8), abs=1e-4)


async def test_greedy_takes_the_most_likely_token(model: PreTrainedModel, start: Start, converse: Any) -> None:
    turns = await converse(start(model).open(), _prompts(5), temperature=0.0)
    ids: list[int] = []
    for prompt, sampled in turns:
        ids += prompt
        for token in sampled.ids:
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            assert token == int(logits.argmax())
            ids.append(token)


async def test_samples_do_not_depend_on_company(model: PreTrainedModel, start: Start, converse: Any) -> None:
    """Equal seeds give equal ids: alone, in a crowd, in another order, with fewer slots."""
    plans = [_prompts(i) for i in range(6)]

    async def play(order: list[int], slots: int) -> dict[int, list[list[int]]]:
        engine = start(model, concurrency=slots)
        played = await asyncio.gather(*(converse(engine.open(), plans[i], seed=100 * i) for i in order))
        return {i: [sampled.ids for _, sampled in turns] for i, turns in zip(order, played, strict=True)}

    crowd = await play([0, 1, 2, 3, 4, 5], slots=6)
    assert await play([5, 3, 1, 4, 2, 0], slots=6) == crowd
    assert await play([0, 1, 2, 3, 4, 5], slots=1) == crowd
    assert (await play([3], slots=1))[3] == crowd[3]


async def test_more_conversations_than_slots_all_finish_even_if_none_leaves(
    model: PreTrainedModel, start: Start, converse: Any, expected_logprobs: Expected
) -> None:
    """Every conversation waits between its turns until all have had theirs: rows must change hands."""
    engine = start(model, concurrency=2)
    barrier = asyncio.Barrier(7)
    jobs = [converse(engine.open(), _prompts(i), seed=i, pause=barrier.wait) for i in range(7)]
    for turns in await asyncio.wait_for(asyncio.gather(*jobs), 60):
        assert _reported(turns) == pytest.approx(expected_logprobs(model, turns), abs=1e-4)


async def test_stop_id_ends_a_turn_and_the_budget_ends_it_otherwise(model: PreTrainedModel, start: Start) -> None:
    engine = start(model, concurrency=12)
    ended = set()
    for sampled in await asyncio.gather(
        *(
            engine.open().sample([9, 10], SamplingParams(max_tokens=20, temperature=2.0), seed=seed)
            for seed in range(12)
        )
    ):
        ended.add(sampled.ended)
        assert sampled.ended == (sampled.ids[-1] == STOP)
        assert STOP not in sampled.ids[:-1]
        assert len(sampled.ids) == len(sampled.logprobs) <= 20
        assert sampled.ended or len(sampled.ids) == 20
    assert ended == {True, False}, "the seeds must show both ends"


async def test_rewrite_forgets_the_conversation(
    model: PreTrainedModel, start: Start, converse: Any, expected_logprobs: Expected
) -> None:
    session = start(model).open()
    await converse(session, _prompts(0))
    session.rewrite()
    assert session.length == 0
    turns = await converse(session, _prompts(1))
    assert _reported(turns) == pytest.approx(expected_logprobs(model, turns), abs=1e-4)


async def test_changed_weights_leave_no_stale_cache(
    model: PreTrainedModel, start: Start, converse: Any, expected_logprobs: Expected
) -> None:
    """The second turn is conditioned on the first as the new weights see it."""
    engine = start(model)
    session = engine.open()
    first = await converse(session, [[9, 10, 11]])
    _shake(model)
    await engine.update_weights(engine.language_model, 1)
    second = await converse(session, [[12, 13]], seed=1)
    assert (first[0][1].version, second[0][1].version) == (0, 1)
    fresh = expected_logprobs(model, first + second)[len(first[0][1].ids) :]
    assert _reported(second) == pytest.approx(fresh, abs=1e-4)


async def test_weights_changed_in_the_middle_of_a_turn(
    model: PreTrainedModel, start: Start, expected_logprobs: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens after the change come from the new weights; the turn is as old as its oldest token."""
    engine = start(model)
    decode = engine._loop.scheduler.decode
    calls = 0

    def interrupted(rows: list[Row]) -> None:
        nonlocal calls
        calls += 1
        decode(rows)
        if calls == 4:
            _shake(model)
            engine._loop.version = 1

    monkeypatch.setattr(engine._loop.scheduler, "decode", interrupted)
    monkeypatch.setattr(engine._loop.scheduler, "ends", lambda row: False)
    sampled = await engine.open().sample([9, 10, 11], SamplingParams(max_tokens=12), seed=0)
    fresh = expected_logprobs(model, [([9, 10, 11], sampled)])
    assert sampled.version == 0
    assert sampled.logprobs[5:] == pytest.approx(fresh[5:], abs=1e-4)
    assert sampled.logprobs[:5] != pytest.approx(fresh[:5], abs=1e-4)


async def test_weights_copied_in_the_middle_of_a_turn_never_meet_a_pass_half_done(
    model: PreTrainedModel, start: Start, expected_logprobs: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every token is the old model's or the new one's, in that order; a mixture would be neither's."""
    engine = start(model, capacity=400)
    engine._loop.scheduler.ends = lambda row: False
    changed = dataclasses.replace(engine.language_model, model=copy.deepcopy(model))
    _shake(changed.model)
    old = copy.deepcopy(model)
    begun, loop, decode = asyncio.Event(), asyncio.get_running_loop(), engine._loop.scheduler.decode

    def noticed(rows: list[Row]) -> None:
        decode(rows)
        loop.call_soon_threadsafe(begun.set)

    monkeypatch.setattr(engine._loop.scheduler, "decode", noticed)
    call = asyncio.ensure_future(engine.open().sample([9, 10], SamplingParams(max_tokens=390), seed=0))
    await begun.wait()
    await engine.update_weights(changed, 5)
    assert not call.done()
    sampled = await call
    before, after = (expected_logprobs(m, [([9, 10], sampled)]) for m in (old, changed.model))
    which = [abs(found - a) < 1e-4 for found, a in zip(sampled.logprobs, after, strict=True)]
    since = which.index(True)
    assert 0 < since < 390
    assert sampled.logprobs[:since] == pytest.approx(before[:since], abs=1e-4)
    assert sampled.logprobs[since:] == pytest.approx(after[since:], abs=1e-4)
    assert (sampled.version, engine.version) == (0, 5)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks the old way
async def test_adapters_reach_an_engine_without_any(
    model_folder: Path, converse: Any, expected_logprobs: Expected
) -> None:
    """A bfloat16 copy samples from what a float32 model with LoRA adapters has learnt, merged."""
    plain = load_model(ModelConfig(path=str(model_folder), context=64, dtype="bfloat16"))
    adapted = load_model(ModelConfig(path=str(model_folder), context=64, lora_rank=2))
    _shake(adapted.model)
    engine = InProcessEngine(language_model=plain, concurrency=2)
    try:
        await engine.update_weights(adapted, 1)
        turns = await converse(engine.open(), [[9, 10, 11]])
    finally:
        await engine.close()
    assert plain.dtype == torch.bfloat16
    assert _reported(turns) == pytest.approx(expected_logprobs(adapted.model, turns), abs=0.1)
    unadapted = load_model(ModelConfig(path=str(model_folder), context=64))
    assert _reported(turns) != pytest.approx(expected_logprobs(unadapted.model, turns), abs=0.1)


async def test_a_session_samples_once_at_a_time_and_never_after_a_cancelled_call(
    model: PreTrainedModel, start: Start
) -> None:
    session = start(model).open()
    call = asyncio.ensure_future(session.sample([9], SamplingParams(max_tokens=50), seed=0))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="once at a time"):
        await session.sample([9], SamplingParams(max_tokens=1), seed=0)
    call.cancel()
    await asyncio.wait([call])
    with pytest.raises(RuntimeError, match="not after a call was cancelled"):
        await session.sample([9], SamplingParams(max_tokens=1), seed=0)


async def test_a_copy_that_fails_ends_the_engine(
    model: PreTrainedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half the weights may be new: nothing sampled from then on could be trusted."""
    engine = start(model)
    changed = dataclasses.replace(engine.language_model, model=copy.deepcopy(model))
    monkeypatch.setattr(
        LanguageModel, "weights", lambda self: {k: v.to("meta") for k, v in model.state_dict().items()}
    )
    for _ in range(2):
        with pytest.raises(PolicyError, match="the engine stopped"):
            await engine.update_weights(changed, 1)
    with pytest.raises(PolicyError, match="the engine stopped"):
        engine.check()
    assert engine.version == 0


async def test_memory_for_less_than_a_conversation_is_refused_by_its_setting(
    model: PreTrainedModel, start: Start
) -> None:
    """Two layers of two heads of 4 numbers in float64: 256 bytes a token, 64 tokens."""
    start(model, memory=64 * 256 / 2**30)
    with pytest.raises(
        UserError, match=r"engine\.memory = .* holds 63 tokens.* raise engine\.memory to .*model\.context"
    ):
        start(model, memory=(64 * 256 - 1) / 2**30)


@pytest.mark.parametrize("tokens", [64, 100, 200])
async def test_conversations_share_a_memory_that_holds_few_of_them(
    model: PreTrainedModel, start: Start, converse: Any, expected_logprobs: Expected, tokens: int
) -> None:
    """Six of up to 64 tokens sample at once; who must make room is run again, and nobody's numbers change."""
    engine = start(model, concurrency=6, memory=tokens * 256 / 2**30)
    cache = engine._loop.scheduler._cache
    most = 0
    reserve = cache.reserve

    def watched(row: Row, count: int) -> bool:
        nonlocal most
        found = reserve(row, count)
        most = max(most, cache.tokens)
        return found

    cache.reserve = watched  # type: ignore[method-assign]
    barrier = asyncio.Barrier(6)
    plans = [_prompts(i, turns=4) for i in range(6)]
    jobs = [
        converse(engine.open(), plan, seed=10 * i, max_tokens=8, pause=barrier.wait)
        for i, plan in enumerate(plans)
    ]
    played = await asyncio.wait_for(asyncio.gather(*jobs), 60)
    for turns in played:
        assert _reported(turns) == pytest.approx(expected_logprobs(model, turns), abs=1e-4)
    assert 0 < most <= tokens
    plenty = start(model, concurrency=6)
    alone = [await converse(plenty.open(), plan, seed=10 * i, max_tokens=8) for i, plan in enumerate(plans)]
    assert [[s.ids for _, s in turns] for turns in played] == [[s.ids for _, s in turns] for turns in alone]


async def test_rows_outgrow_their_pools_and_keep_their_past(
    model: PreTrainedModel, start: Start, expected_logprobs: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 8 to 64 tokens through four pools, three conversations at different paces."""
    monkeypatch.setattr("envgym_trainers.engine.cache._SHORTEST", 8)
    engine = start(model)
    engine._loop.scheduler.ends = never
    assert [pool.capacity for pool in engine._loop.scheduler._cache.pools] == [8, 16, 32, 64]
    calls = [
        engine.open().sample(list(range(9, 9 + n)), SamplingParams(max_tokens=50), seed=n) for n in (1, 6, 13)
    ]
    for n, sampled in zip((1, 6, 13), await asyncio.gather(*calls), strict=True):
        expected = expected_logprobs(model, [(list(range(9, 9 + n)), sampled)])
        assert sampled.logprobs == pytest.approx(expected, abs=1e-4)


async def test_a_late_turn_runs_its_new_tokens_alone(
    model: PreTrainedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five turns of a long conversation: as many tokens go through the model as there are, each once."""
    engine = start(model, capacity=4096)
    scheduler = engine._loop.scheduler
    scheduler.ends = never
    forward, run = scheduler._forward, 0

    def counted(ids: list[int], *args: Any) -> torch.Tensor:
        nonlocal run
        run += len(ids)
        return forward(ids, *args)

    monkeypatch.setattr(scheduler, "_forward", counted)
    session = engine.open()
    for turn in range(5):
        run = 0
        await session.sample([9 + turn] * 790, SamplingParams(max_tokens=10), seed=turn)
        # The last token that a turn samples runs with the next turn.
        assert run == 790 + 10 - 1 + (turn > 0)


@pytest.mark.parametrize("stop", ["e", "one", "ll"])
async def test_a_text_ends_a_turn(model_folder: Path, stop: str) -> None:
    """Its last id completes the text; a sampler that stops nowhere would go on."""
    language_model = load_model(ModelConfig(path=str(model_folder), context=128))
    tokenizer = language_model.tokenizer
    engine = InProcessEngine(language_model=language_model, concurrency=8)
    try:
        prompt = list(tokenizer.encode("hello", add_special_tokens=False))
        calls = [
            engine.open().sample(prompt, SamplingParams(max_tokens=100, stop=(stop, "never")), seed=seed)
            for seed in range(16)
        ]
        found = await asyncio.gather(*calls)
    finally:
        await engine.close()
    for sampled in found:
        text = tokenizer.decode(sampled.ids)
        assert stop not in tokenizer.decode(sampled.ids[:-1])
        assert sampled.ended == (stop in text or sampled.ids[-1] in language_model.stop_ids)
    assert stop != "e" or any(stop in tokenizer.decode(sampled.ids) for sampled in found)


@pytest.mark.parametrize("leave", ["close", "cancel"])
async def test_leaving_in_the_middle_frees_the_slot(model: PreTrainedModel, start: Start, leave: str) -> None:
    """One slot: whoever comes next gets it although the first never finished."""
    engine = start(model, concurrency=1, capacity=4000)
    engine._loop.scheduler.ends = lambda row: False
    session = engine.open()
    long = asyncio.ensure_future(session.sample([9], SamplingParams(max_tokens=3900), seed=0))
    await asyncio.sleep(0.05)
    assert not long.done()
    if leave == "cancel":
        long.cancel()
    await session.close()
    await session.close()
    sampled = await asyncio.wait_for(engine.open().sample([9], SamplingParams(max_tokens=3), seed=0), 30)
    assert len(sampled.ids) == 3
    if leave == "close":
        with pytest.raises(PolicyError, match="closed while it was sampling"):
            await asyncio.wait_for(long, 5)


async def test_an_exception_in_the_model_reaches_every_waiter_at_once(
    model: PreTrainedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding, queueing and later conversations all get the error; nobody hangs."""
    engine = start(model, concurrency=2)

    def explode(rows: list[Row]) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine._loop.scheduler, "decode", explode)
    began = time.monotonic()
    results = await asyncio.wait_for(
        asyncio.gather(
            *(engine.open().sample([9, i], SamplingParams(max_tokens=5), seed=0) for i in range(10, 15)),
            return_exceptions=True,
        ),
        30,
    )
    assert all(isinstance(r, PolicyError) and "out of memory" in str(r) for r in results)
    with pytest.raises(PolicyError, match="out of memory"):
        await asyncio.wait_for(engine.open().sample([9], SamplingParams(max_tokens=5), seed=0), 5)
    with pytest.raises(PolicyError, match="out of memory"):
        engine.check()
    assert time.monotonic() - began < 20


async def test_threads_are_set_by_sampling_and_by_nothing_else(
    model: PreTrainedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Conversations are closed while a learner runs, which has set the threads that it wants."""
    calls = [8]
    monkeypatch.setattr(torch, "get_num_threads", lambda: calls[-1])
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    engine = start(model)
    engine._loop.scheduler.ends = never
    session = engine.open()
    await session.sample([9, 10], SamplingParams(max_tokens=12), seed=0)
    assert calls == [8, 7], "one core is left to the environments by a small model"
    monkeypatch.setattr(Scheduler, "heavy", True)
    await session.sample([9, 10], SamplingParams(max_tokens=12), seed=1)
    assert calls == [8, 7, 8], "and none by one whose steps take long"
    calls.append(2)
    await session.close()
    await engine.open().close()
    await engine.close()
    assert calls == [8, 7, 8, 2]


async def test_closing_the_engine_tells_whoever_waits(model: PreTrainedModel, start: Start) -> None:
    engine = start(model, capacity=4000)
    engine._loop.scheduler.ends = lambda row: False
    waiting = asyncio.ensure_future(engine.open().sample([9], SamplingParams(max_tokens=3900), seed=0))
    await asyncio.sleep(0.02)
    await engine.close()
    await engine.close()
    with pytest.raises(PolicyError, match="it was closed"):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(PolicyError, match="it was closed"):
        await engine.open().sample([9], SamplingParams(max_tokens=1), seed=0)


@pytest.mark.parametrize(
    ("new_ids", "max_tokens"),
    [([], 5), ([9], 0), ([9] * 60, 5), ([9], 64)],
    ids=["empty", "none", "long", "budget"],
)
async def test_what_does_not_fit_is_refused_without_harm(
    model: PreTrainedModel, start: Start, new_ids: list[int], max_tokens: int
) -> None:
    """A bad request must not reach the thread that everyone shares."""
    engine = start(model)
    session = engine.open()
    with pytest.raises(ValueError, match="at most 64"):
        await session.sample(new_ids, SamplingParams(max_tokens=max_tokens), seed=0)
    sampled = await session.sample([9] * 60, SamplingParams(max_tokens=4), seed=0)
    assert sampled.ids


def test_group_of_one_prompt_runs_it_once(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows from one prompt and one from another: a forward pass over five tokens."""
    scheduler = Scheduler(model, memory=MEMORY, capacity=64, ends=never)
    seen: list[list[int]] = []
    forward = scheduler._forward

    def spy(ids: list[int], *args: Any) -> torch.Tensor:
        seen.append(ids)
        return forward(ids, *args)

    monkeypatch.setattr(scheduler, "_forward", spy)
    rows = [Row(ids=[9, 10, 11] if i < 4 else [20, 21], uniform=torch.rand(8).numpy()) for i in range(5)]
    for row in rows:
        scheduler.reserve(row, 10)
    scheduler.extend(rows)
    assert seen == [[9, 10, 11, 20, 21]]
    assert [row.cached for row in rows] == [3, 3, 3, 3, 2]


def test_layers_without_attention_are_refused_by_name() -> None:
    config = MambaConfig(vocab_size=97, hidden_size=16, num_hidden_layers=2, state_size=4)
    with pytest.raises(UserError, match="this model has linear_attention"):
        Scheduler(MambaForCausalLM(config), memory=MEMORY, capacity=64, ends=never)


def test_a_model_blind_to_positions_is_refused(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by its family's name: by comparing what it says with and without the cache."""
    forward = LlamaModel.forward

    def blind(self: Any, *args: Any, **arguments: Any) -> Any:
        arguments.pop("position_ids", None)
        return forward(self, *args, **arguments)

    monkeypatch.setattr(LlamaModel, "forward", blind)
    with pytest.raises(UserError, match="off those of a plain forward pass"):
        Scheduler(model, memory=MEMORY, capacity=64, ends=never)


@torch.no_grad()
def _shake(model: PreTrainedModel) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
