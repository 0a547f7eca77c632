"""Trajectories become samples: what is trained on is what was sampled."""

from __future__ import annotations

import math

from envgym.records import Message, Task, Trajectory, Turn, TurnTokens, VersionSpan
from envgym_trainers.batch import collate
from envgym_trainers.learner.samples import samples_of

_ACTION = Message(role="assistant", content="")


def _trajectory(*tokens: TurnTokens | None) -> Trajectory:
    turns = [Turn(messages=(), action=_ACTION, tokens=t, reward=i + 1.0) for i, t in enumerate(tokens)]
    return Trajectory(env="e", task=Task(id="t", split="train", messages=()), turns=turns)


def _tokens(prompt: list[int], completion: list[int], *, version: int = 0, fork: bool = False) -> TurnTokens:
    logprobs = [-0.5 * i for i in completion]
    return TurnTokens(
        prompt_ids=prompt, completion_ids=completion, logprobs=logprobs, policy_version=version, fork=fork
    )


def test_turns_join_into_one_sample_with_environment_tokens_masked_out() -> None:
    """The worked example of ``envgym_trainers.batch``; the version is the oldest one's."""
    (sample,) = samples_of(_trajectory(_tokens([7, 8], [3, 4], version=5), _tokens([9], [5], version=4)), "g")
    assert sample.ids.tolist() == [7, 8, 3, 4, 9, 5]
    assert sample.mask.tolist() == [False, False, True, True, False, True]
    assert [None if math.isnan(x) else x for x in sample.logprobs.tolist()] == [None, None, -1.5, -2.0, None, -2.5]
    assert (sample.group, sample.version) == ("g", 4)
    assert sample.turn_rewards is not None
    assert sample.turn_rewards.tolist() == [0, 0, 0, 1, 0, 2]  # at the last token of each turn


def test_every_token_keeps_the_version_of_the_weights_that_sampled_it() -> None:
    """Weights that change in mid-turn leave their mark; a turn without spans is of one version."""
    mixed = _tokens([7, 8], [3, 4, 5], version=2)
    mixed.spans = [VersionSpan(2, 1), VersionSpan(3, 2)]
    (sample,) = samples_of(_trajectory(mixed, _tokens([9], [6], version=4)), "g")
    assert sample.token_versions[sample.mask].tolist() == [2, 3, 3, 4]
    assert sample.version == 2
    batch = collate([(sample,)], 0)
    assert batch.versions is not None
    assert batch.versions[batch.mask].tolist() == [2, 3, 3, 4]


def test_a_record_that_claims_more_tokens_than_it_has_is_not_believed() -> None:
    tokens = _tokens([7], [3, 4])
    tokens.spans = [VersionSpan(1, 10**15)]
    assert tokens.versions == [1, 1]


def test_a_fork_begins_a_sample_and_each_token_is_trained_on_once() -> None:
    first, second = samples_of(_trajectory(_tokens([7], [3]), _tokens([7, 3, 9], [5], fork=True)), "g")
    assert (first.ids.tolist(), first.mask.tolist()) == ([7, 3], [False, True])
    assert (second.ids.tolist(), second.mask.tolist()) == ([7, 3, 9, 5], [False, False, False, True])
    assert first.turn_rewards is not None
    assert second.turn_rewards is not None
    assert (first.turn_rewards.tolist(), second.turn_rewards.tolist()) == ([0, 1], [0, 0, 0, 2])


def test_nothing_sampled_gives_no_sample() -> None:
    assert samples_of(_trajectory(), "g") == []
    assert samples_of(_trajectory(None), "g") == []
    assert samples_of(_trajectory(_tokens([7, 8], [])), "g") == []
