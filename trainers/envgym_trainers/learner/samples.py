"""Turn trajectories into samples: token ids, the mask of sampled tokens, and the rewards of turns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from envgym.records import Trajectory
from envgym_trainers.batch import Sample

__all__ = ["samples_of"]


@dataclass(slots=True)
class _Sequence:
    ids: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)


def samples_of(trajectory: Trajectory, group: str) -> list[Sample]:
    """Return the training samples of one trajectory: one, and another for each turn that rewrites history.

    Environment tokens, templates included, are masked out; sampled ids and log-probs are those of the engine.

    Args:
        trajectory: its turns carry tokens if a trainable model acted.
        group: name of the trajectory's group.

    Returns:
        samples with at least one sampled token; none for a trajectory that sampled nothing.
    """
    sequences: list[_Sequence] = []
    for turn in trajectory.turns:
        tokens = turn.tokens
        if tokens is None:
            continue
        if tokens.fork or not sequences:
            sequences.append(_Sequence())
        current = sequences[-1]
        current.ids += tokens.prompt_ids + tokens.completion_ids
        current.mask += [False] * len(tokens.prompt_ids) + [True] * len(tokens.completion_ids)
        current.logprobs += [math.nan] * len(tokens.prompt_ids) + tokens.logprobs
        current.rewards += [0.0] * (len(tokens.prompt_ids) + len(tokens.completion_ids))
        if tokens.completion_ids:
            current.rewards[-1] = turn.reward
        current.versions += [tokens.policy_version] * len(tokens.prompt_ids) + tokens.versions
    total = sum(sum(s.mask) for s in sequences)
    return [
        Sample(
            ids=torch.tensor(s.ids),
            mask=torch.tensor(s.mask),
            logprobs=torch.tensor(s.logprobs),
            turn_rewards=torch.tensor(s.rewards),
            group=group,
            trajectory_tokens=total,
            version=min(v for v, sampled in zip(s.versions, s.mask, strict=True) if sampled),
            versions=torch.tensor(s.versions),
        )
        for s in sequences
        if any(s.mask)
    ]
