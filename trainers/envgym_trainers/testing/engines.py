"""The contract of engines, as tests."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import functools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch

from envgym.errors import PolicyError, UserError
from envgym_trainers.engine.interface import Engine, EngineSession, Sampled, SamplingParams, engines
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import NewModelConfig
from envgym_trainers.models.tiny import new_model

__all__ = ["EngineContract"]

_SECONDS = 120.0
"""Time limit of one test; a longer one hangs."""
_CONTEXT = 64

Turns = list[tuple[list[int], Sampled]]


def _awaited(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an asynchronous test without a pytest plugin."""

    @functools.wraps(test)
    def run(*args: Any, **values: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **values), _SECONDS))

    return run


class EngineContract:
    """Test the log-probs, weights, fairness and life cycle of an engine::

    class TestMine(EngineContract):
        engine = "my_package.engine:MyEngine"
        settings = {"url": "http://127.0.0.1:8000"}
    """

    engine: str
    """A registered name, or ``"package.module:Class"``."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """Fields of the engine's ``Config``."""
    tolerance: ClassVar[float] = 1e-3
    """Largest error of a log-prob, in nats."""

    def language_model(self) -> LanguageModel:
        """Make the model to sample from, with equal weights every time; override it for one the engine can run."""
        torch.manual_seed(0)
        made = new_model(NewModelConfig(vocabulary=300, hidden_size=32, layers=2, heads=2), ["hello"], _CONTEXT)
        _shake(made, 0.3)  # a new model's distributions are so flat that they would hide every mistake
        return made

    @contextlib.asynccontextmanager
    async def running(self, language_model: LanguageModel, concurrency: int = 4) -> AsyncIterator[Engine]:
        """Open an engine for ``language_model``; close it at the end."""
        engine = engines.make(self.engine, self.settings, language_model=language_model, concurrency=concurrency)
        try:
            yield engine
        finally:
            await engine.close()

    @_awaited
    async def test_logprobs_are_those_of_a_plain_forward_pass(self) -> None:
        """Play six conversations of three turns, two of them from one prompt, more than sample at once."""
        model = self.language_model()
        async with self.running(model) as engine:
            plans = [_prompts(i) for i in (0, 0, 1, 2, 3, 4)]
            jobs = [_converse(engine.open(), plan, seed=10 * i) for i, plan in enumerate(plans)]
            for turns in await asyncio.gather(*jobs):
                self._check(model, turns)

    @_awaited
    async def test_greedy_takes_the_most_likely_token_and_reports_it_at_temperature_one(self) -> None:
        """Report the log-probs that training compares with, whatever the temperature."""
        model = self.language_model()
        async with self.running(model) as engine:
            turns = await _converse(engine.open(), _prompts(5), temperature=0.0)
        table, rows, ids = _table(model, turns, 1.0)
        assert [int(table[row].argmax()) for row in rows] == ids
        self._check(model, turns, temperature=1.0)

    @_awaited
    async def test_seeds_draw(self) -> None:
        """Draw alike with equal seeds where nothing else is in the batch, and otherwise with others."""
        async with self.running(self.language_model()) as engine:
            plan = _prompts(6)
            first, again, other = [await _converse(engine.open(), plan, seed=seed) for seed in (3, 3, 4)]
        assert first == again
        assert first != other

    @_awaited
    async def test_a_stop_id_ends_a_turn_and_the_budget_ends_it_otherwise(self) -> None:
        """Give the stop id back, once and last, and say which of the two it was."""
        model = _half_ends(self.language_model())
        async with self.running(model) as engine:
            calls = [engine.open().sample([9, 10], SamplingParams(max_tokens=2), seed=seed) for seed in range(32)]
            found = await asyncio.gather(*calls)
        for sampled in found:
            assert sampled.ended == (sampled.ids[-1] in model.stop_ids)
            assert not set(sampled.ids[:-1]) & set(model.stop_ids)
            assert len(sampled.ids) == len(sampled.logprobs) <= 2
            assert sampled.ended or len(sampled.ids) == 2
        assert {sampled.ended for sampled in found} == {True, False}

    @_awaited
    async def test_a_conversation_can_be_rewritten(self) -> None:
        """Forget everything on ``rewrite``; what is sampled next is conditioned on the new history alone."""
        model = self.language_model()
        async with self.running(model) as engine:
            session = engine.open()
            turns = await _converse(session, _prompts(0))
            assert session.length == sum(len(prompt) + len(sampled.ids) for prompt, sampled in turns)
            session.rewrite()
            assert session.length == 0
            self._check(model, await _converse(session, _prompts(1)))

    @pytest.mark.parametrize("own", [True, False], ids=["the engine's own model", "another model"])
    @_awaited
    async def test_new_weights_are_sampled_from_at_once(self, own: bool) -> None:
        """Condition even on earlier turns as the new weights see them: no stale cache."""
        model = self.language_model()
        old = copy.deepcopy(model)
        changed = model if own else copy.deepcopy(model)
        async with self.running(model) as engine:
            session = engine.open()
            first = await _converse(session, [[9, 10, 11, 12]])
            _shake(changed, 0.3)
            await engine.update_weights(changed, 7)
            assert engine.version == 7
            second = await _converse(session, [[12, 13]], seed=1)
            fresh = await _converse(engine.open(), [[9, 10, 11, 12]])
        assert [sampled.version for _, sampled in (*first, *second, *fresh)] == [0, 7, 7]
        self._check(changed, first + second, since=1)
        self._check(changed, fresh)
        with pytest.raises(AssertionError):
            self._check(old, first + second, since=1)

    @_awaited
    async def test_weights_of_another_architecture_are_refused_and_change_nothing(self) -> None:
        """Keep the version and go on sampling from the old weights."""
        model = self.language_model()
        other = new_model(NewModelConfig(vocabulary=300, hidden_size=16, layers=1, heads=2), ["hello"], _CONTEXT)
        async with self.running(model) as engine:
            with pytest.raises(UserError):
                await engine.update_weights(other, 1)
            assert engine.version == 0
            self._check(model, await _converse(engine.open(), _prompts(2)))

    @_awaited
    async def test_no_conversation_starves(self) -> None:
        """Have seven wait for each other between turns while two sample at once: slots must change hands."""
        model = self.language_model()
        async with self.running(model, concurrency=2) as engine:
            barrier = asyncio.Barrier(7)
            jobs = [_converse(engine.open(), _prompts(i), seed=i, pause=barrier.wait) for i in range(7)]
            for turns in await asyncio.gather(*jobs):
                self._check(model, turns)

    @_awaited
    async def test_what_does_not_fit_is_refused_without_harm(self) -> None:
        """Name the capacity; the session can be used afterwards."""
        model = self.language_model()
        async with self.running(model) as engine:
            session, most = engine.open(), engine.capacity
            for new_ids, max_tokens in (([], 5), ([9], 0), ([9] * (most - 4), 5), ([9], most)):
                with pytest.raises(ValueError, match=str(most)):
                    await session.sample(new_ids, SamplingParams(max_tokens=max_tokens), seed=0)
            assert session.length == 0
            self._check(model, await _converse(session, [[9] * (most - 6)]))

    @_awaited
    async def test_a_session_samples_once_at_a_time(self) -> None:
        """Serve two calls at once one after the other, or refuse the second."""
        model = self.language_model()
        async with self.running(model) as engine:
            session = engine.open()
            calls = [
                session.sample([9, i], SamplingParams(max_tokens=4, temperature=0.8), seed=0) for i in (10, 11)
            ]
            first, second = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(first, Sampled)
            assert isinstance(second, Sampled | RuntimeError)
            if isinstance(second, RuntimeError):
                self._check(model, [([9, 10], first), *await _converse(session, [[12]])])

    @_awaited
    async def test_whoever_leaves_makes_room(self) -> None:
        """Cancel a call, then close a session: the only place is free for the next."""
        model = self.language_model()
        async with self.running(model, concurrency=1) as engine:
            session = engine.open()
            call = asyncio.ensure_future(session.sample([9], SamplingParams(max_tokens=50), seed=0))
            await asyncio.sleep(0)
            if call.cancel():
                await asyncio.wait([call])
                with pytest.raises(RuntimeError):
                    await session.sample([9], SamplingParams(max_tokens=1), seed=0)
            await session.close()
            await session.close()
            self._check(model, await _converse(engine.open(), _prompts(3)))

    @_awaited
    async def test_work_is_counted(self) -> None:
        """Count turns and sampled tokens."""
        async with self.running(self.language_model()) as engine:
            before = engine.statistics()
            turns = await _converse(engine.open(), _prompts(4))
            after = engine.statistics()
        assert after.completions - before.completions == len(turns)
        assert after.sampled_tokens - before.sampled_tokens == sum(len(s.ids) for _, s in turns)

    @_awaited
    async def test_a_closed_engine_says_so(self) -> None:
        """Raise instead of waiting for ever; closing twice is allowed."""
        async with self.running(self.language_model()) as engine:
            engine.check()
            session = engine.open()
            await engine.close()
            await engine.close()
            with pytest.raises(PolicyError):
                await session.sample([9], SamplingParams(max_tokens=1), seed=0)
            with pytest.raises(PolicyError):
                engine.check()

    def _check(self, model: LanguageModel, turns: Turns, *, temperature: float = 0.8, since: int = 0) -> None:
        """Compare the log-probs of the turns from ``since`` on with one plain forward pass over all turns."""
        table, rows, ids = _table(model, turns, temperature)
        skipped = sum(len(sampled.ids) for _, sampled in turns[:since])
        expected = [float(table[row, i]) for row, i in zip(rows, ids, strict=True)][skipped:]
        found = [value for _, sampled in turns[since:] for value in sampled.logprobs]
        gap = max(abs(a - b) for a, b in zip(found, expected, strict=True))
        assert gap <= self.tolerance, f"log-probs are up to {gap:g} nats off those of a plain forward pass"


async def _converse(
    session: EngineSession,
    prompts: list[list[int]],
    *,
    seed: int = 0,
    temperature: float = 0.8,
    pause: Callable[[], Awaitable[object]] | None = None,
) -> Turns:
    turns = []
    for i, prompt in enumerate(prompts):
        if i and pause:
            await pause()
        turns.append(
            (
                prompt,
                await session.sample(prompt, SamplingParams(max_tokens=6, temperature=temperature), seed=seed + i),
            )
        )
    return turns


@torch.no_grad()
def _table(model: LanguageModel, turns: Turns, temperature: float) -> tuple[torch.Tensor, list[int], list[int]]:
    """Return log-probs of every position, [T, V], the row that each sampled id came from, and the ids."""
    ids: list[int] = []
    rows: list[int] = []
    for prompt, sampled in turns:
        ids += prompt
        rows += range(len(ids) - 1, len(ids) - 1 + len(sampled.ids))
        ids += sampled.ids
    logits = model.model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0].float()
    return torch.log_softmax(logits / temperature, dim=-1), rows, [ids[row + 1] for row in rows]


def _prompts(seed: int) -> list[list[int]]:
    """Return three prompts of uneven length."""
    rng = random.Random(seed)
    return [[rng.randrange(8, 256) for _ in range(rng.randint(1, 9))] for _ in range(3)]


@torch.no_grad()
def _shake(model: LanguageModel, scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in model.model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=scale)


def _half_ends(model: LanguageModel) -> LanguageModel:
    """Let every second id end a turn."""
    made = dataclasses.replace(model)
    vars(made)["stop_ids"] = tuple(range(0, model.model.config.get_text_config().vocab_size, 2))
    return made
