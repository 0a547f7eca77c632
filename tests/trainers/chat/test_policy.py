"""The engine's policy in whole episodes: truncation by tokens and by context, token records, versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from envgym.chat.tool_formats import HermesFormat
from envgym.env.chat_env import ChatEnv, Reply
from envgym.policies.interface import policies
from envgym.records import Message, Score, Split, Task, Trajectory
from envgym.rollout.episode import rollout
from envgym_trainers.chat.policy import EnginePolicy, ModelPolicy
from envgym_trainers.engine.in_process import InProcessEngine
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


class _EveryIdEnds(LanguageModel):
    stop_ids = tuple(range(300))


class _NoIdEnds(LanguageModel):
    stop_ids = ()


@pytest.fixture
def play(make_language_model: Callable[[], LanguageModel]) -> Any:
    """``await play(max_tokens=…, max_turns=…, context=…)``: an episode of ``Chatter`` where every id may end."""

    async def run(*, max_tokens: int, max_turns: int, context: int, ends: bool) -> Trajectory:
        language_model = make_language_model()
        kind = _EveryIdEnds if ends else _NoIdEnds
        small = kind(model=language_model.model, tokenizer=language_model.tokenizer, context=context)
        engine = InProcessEngine(language_model=small, concurrency=2)
        policy = EnginePolicy(engine=engine, language_model=small, max_tokens=max_tokens)
        env = Chatter(max_turns=max_turns)
        try:
            return await rollout(env, policy, env.task_list("train")[0], name="chatter", seed=1)
        finally:
            await engine.close()

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


async def test_a_message_that_the_context_leaves_no_room_for_is_cut_by_the_context(play: Any) -> None:
    """The cap of a turn is the same; only the room differs."""
    trajectory = await play(max_tokens=60, max_turns=3, context=48, ends=False)
    assert trajectory.turns[0].action.cut
    assert 0 < trajectory.sampled_tokens < 60
    assert trajectory.outcome.reason == "context"


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


class Shout(HermesFormat):
    """Reads every text as a shout."""

    def parse(self, text: str) -> Message:
        return Message(role="assistant", content="SHOUT")


class Narrow(InProcessEngine):
    """Holds very little."""

    class Config(InProcessEngine.Config):
        held: int

    config: Config

    @property
    def capacity(self) -> int:
        return self.config.held


@pytest.mark.parametrize(
    ("settings", "outcome", "said"),
    [
        ({}, "tokens", None),
        ({"tool_format": f"{__name__}:Shout"}, "tokens", "SHOUT"),
        ({"engine": {"name": f"{__name__}:Narrow", "held": 4}}, "context", None),
        ({"dtype": "bfloat16", "device": "cpu"}, "tokens", None),
    ],
    ids=["defaults", "tool_format", "engine", "placement"],
)
async def test_settings_of_a_model_policy(
    model_folder: Any, settings: dict[str, Any], outcome: str, said: str | None
) -> None:
    """Made by name like any policy; each setting changes the episode or the model."""
    values = {"path": str(model_folder), "max_tokens": 1, "context": 64, "concurrency": 2, **settings}
    policy = policies.make("model", values)
    env = Chatter(max_turns=1)
    try:
        trajectory = await rollout(env, policy, env.task_list("train")[0], name="c", seed=3)
    finally:
        await policy.close()
    assert trajectory.outcome.reason == outcome
    if said is not None:
        assert trajectory.turns[0].action.content == said
    assert isinstance(policy, ModelPolicy)
    assert policy.language_model.dtype == getattr(torch, settings.get("dtype", "float32"))
