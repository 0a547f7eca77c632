"""The engine's policy in whole episodes: truncation by tokens and by context, token records, versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from envgym.env.chat_env import ChatEnv, Reply
from envgym.records import Message, Score, Split, Task, Trajectory
from envgym.rollout.episode import rollout
from envgym_trainers.chat.policy import EnginePolicy, ModelPolicy
from envgym_trainers.learner.samples import samples_of
from envgym_trainers.models.language_model import LanguageModel


class Chatter(ChatEnv):
    """Answers whatever is said, for as long as it is asked to."""

    def tasks(self, split: Split) -> Sequence[Task]:
        return [Task(id="t", split=split, messages=(Message(role="user", content="hello"),))]

    async def respond(self, action: Message) -> Reply:
        return Reply(messages=(Message(role="user", content="go on <|end|>"),))

    def score(self, trajectory: Trajectory) -> Score:
        return Score(value=0.5, accuracy=0.5)


@pytest.fixture
def play(make_language_model: Callable[[], LanguageModel]) -> Any:
    """``await play(max_tokens=…, max_turns=…, context=…)``: an episode of ``Chatter`` where every id may end."""

    async def run(*, max_tokens: int, max_turns: int, context: int, ends: bool) -> Trajectory:
        language_model = make_language_model()
        small = LanguageModel(model=language_model.model, tokenizer=language_model.tokenizer, context=context)
        engine, policy = EnginePolicy.over(small, slots=2, max_tokens=max_tokens, temperature=1.0)
        everything = range(len(small.tokenizer))
        policy.stops = tuple(everything) if ends else ()
        engine._scheduler.stop_ids = frozenset(policy.stops)
        env = Chatter(max_turns=max_turns)
        try:
            return await rollout(env, policy, env.task_list("train")[0], name="chatter", seed=1)
        finally:
            await policy.close()

    return run


async def test_every_turn_carries_its_tokens(play: Any) -> None:
    trajectory = await play(max_tokens=4, max_turns=3, context=128, ends=True)
    assert trajectory.outcome.reason == "turns"
    assert len(trajectory.turns) == 3
    for turn in trajectory.turns:
        assert len(turn.tokens.completion_ids) == len(turn.tokens.logprobs) == 1
        assert turn.tokens.policy_version == 0
    first, second = trajectory.turns[0].tokens.prompt_ids, trajectory.turns[1].tokens.prompt_ids
    assert first != second
    assert sum(sample.model_tokens for sample in samples_of(trajectory, "g")) == 3


async def test_the_token_budget_cuts_the_episode(play: Any) -> None:
    trajectory = await play(max_tokens=5, max_turns=3, context=128, ends=False)
    assert trajectory.outcome.reason == "tokens"
    assert len(trajectory.turns) == 1
    assert trajectory.turns[0].action.cut
    assert trajectory.sampled_tokens == 5


async def test_a_full_context_truncates_and_scores(play: Any) -> None:
    """The conversation never outgrows the context, and the episode still counts."""
    trajectory = await play(max_tokens=8, max_turns=30, context=48, ends=True)
    assert trajectory.outcome.reason == "context"
    assert trajectory.reward == 0.5
    lengths = [len(sample) for sample in samples_of(trajectory, "g")]
    assert 40 < max(lengths) <= 48


async def test_a_prompt_longer_than_the_context_is_no_failure(play: Any) -> None:
    trajectory = await play(max_tokens=8, max_turns=3, context=5, ends=True)
    assert trajectory.outcome.reason == "context"
    assert trajectory.turns == []
    assert samples_of(trajectory, "g") == []


async def test_a_model_from_a_folder_plays(model_folder: Any) -> None:
    policy = ModelPolicy(path=str(model_folder), temperature=0.0, max_tokens=3, context=64, concurrency=2)
    env = Chatter(max_turns=1)
    try:
        first, second = [await rollout(env, policy, env.task_list("train")[0], name="c", seed=i) for i in (1, 2)]
    finally:
        await policy.close()
        await policy.close()
    assert first.turns[0].tokens == second.turns[0].tokens, "greedy decoding does not depend on the seed"
