"""What a limit cuts is trained on as the recipe says, limit by limit; it is recorded and evaluated in any case."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from envgym.env.chat_env import ChatEnv, Reply
from envgym.env.rubric import Reward, Rubric
from envgym.errors import RecipeError
from envgym.records import Message, OutcomeKind, Score, Split, Task, Trajectory
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym_trainers.batch import Unit
from envgym_trainers.learner.samples import samples_of
from envgym_trainers.learner.updater import Updater
from envgym_trainers.objectives.ops.advantages import group_normalised
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.rl import ReinforcementStage

_FLOOR = -1.0
_LIMITS: dict[str, dict[str, Any]] = {
    "tokens": {"sampling": {"max_tokens": 40}, "model": {"context": 128}},
    "turns": {"sampling": {"max_tokens": 100}, "model": {"context": 128}},
    "context": {"sampling": {"max_tokens": 200}, "model": {"context": 64}},
}
"""Settings under which a random model, which ends its turn in one token of a few dozen, meets each limit."""


def _worth(trajectory: Trajectory) -> float:
    return len(trajectory.final_text) % 10 / 10


class Chatter(ChatEnv):
    """Pays for the length of what was said; every other message ends the one turn that there is."""

    class Config(ChatEnv.Config):
        max_turns: int = 1

    reward_range = (_FLOOR, 1.0)

    def tasks(self, split: Split) -> Sequence[Task]:
        asked = Message(role="user", content="?")
        return [Task(id=f"{split}-{i}", problem=f"{split} {i}", split=split, messages=(asked,)) for i in range(50)]

    async def respond(self, action: Message) -> Reply:
        return Reply(done=len(action.content) % 2 == 0)

    async def score(self, trajectory: Trajectory) -> Score:
        return await Rubric(Reward(name="worth", function=_worth), floor=_FLOOR).score(trajectory)


Train = Callable[..., Coroutine[Any, Any, tuple[RunFolder, dict[tuple[int, ...], float]]]]


@pytest.fixture
def train(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """``await train("mask", "tokens")``: the folder of a run of one step, and the advantages by sampled ids."""
    seen: dict[tuple[int, ...], float] = {}
    real = Updater.update

    def update(updater: Updater, units: Sequence[Unit], *args: Any, **values: Any) -> dict[str, float]:
        for sample in (s for unit in units for s in unit):
            assert sample.advantages is not None
            seen[tuple(sample.ids.tolist())] = float(sample.advantages[sample.mask][0])
        return real(updater, units, *args, **values)

    monkeypatch.setattr(Updater, "update", update)

    async def run(policy: str, limit: str, **values: Any) -> tuple[RunFolder, dict[tuple[int, ...], float]]:
        settings = _LIMITS[limit]
        recipe = ReinforcementRecipe.model_validate(
            {
                "mix": [{"env": f"{Chatter.__module__}:{Chatter.__name__}", "name": "toy"}],
                "evaluate": {"tasks": 8},
                "groups": 4,
                "group_size": 12,
                "steps": 1,
                "objective": {"name": "grpo"},
                "truncated": {limit: policy},
                **settings,
                "model": {**settings["model"], "path": str(model_folder)},
                **values,
            }
        )
        seen.clear()
        place = RunFolder.create(tmp_path / policy, recipe, recipe.seed)
        with Reporter(live=False) as reporter:
            await ReinforcementStage(**recipe.model_dump()).run(place, reporter)
        return place, dict(seen)

    return run


def _advantages(played: Sequence[Trajectory], policy: str, limit: str) -> dict[tuple[int, ...], float]:
    """What GRPO makes of the members that take part, by their ids, worked out from the records alone."""

    def reward(trajectory: Trajectory) -> float:
        if trajectory.outcome.kind is not OutcomeKind.TRUNCATED:
            return _worth(trajectory)
        chosen = policy if trajectory.outcome.reason == limit else "penalise"
        return {"penalise": _FLOOR, "mask": math.nan, "score": _worth(trajectory)}[chosen]

    expected: dict[tuple[int, ...], float] = {}
    for task in {t.task.id for t in played}:
        members = [t for t in played if t.task.id == task]
        rewards = torch.tensor([reward(t) for t in members], dtype=torch.float64)
        for member, value, advantage in zip(members, rewards, group_normalised(rewards).tolist(), strict=True):
            if not value.isnan():
                (sample,) = samples_of(member, task)
                expected[tuple(sample.ids.tolist())] = advantage
    return expected


@pytest.mark.parametrize("policy", ["penalise", "mask", "score"])
@pytest.mark.parametrize("limit", ["tokens", "turns", "context"])
async def test_each_limit_has_its_policy(train: Train, policy: str, limit: str) -> None:
    """The batch is what the policy of that limit says, member by member; those that it masks are counted."""
    place, seen = await train(policy, limit)
    played = place.trajectories(1)
    assert len(played) == 48, "whatever is trained on, all is recorded"
    cut = sum(t.outcome.reason == limit for t in played)
    assert 0 < cut < 48
    assert any(t.outcome.kind is OutcomeKind.COMPLETED for t in played)
    assert seen == pytest.approx(_advantages(played, policy, limit), abs=1e-5)
    (row,) = place.metrics()
    assert row[f"episodes_truncated/{limit}"] == cut
    counted = {name: n for name, n in row.items() if name.startswith("episodes_masked/")}
    assert counted == ({f"episodes_masked/{limit}": cut} if policy == "mask" else {})
    assert row["samples"] == 48 - (cut if policy == "mask" else 0)


async def test_evaluation_says_what_the_environment_says(train: Train) -> None:
    """Before training, the same model is worth the same, to the byte, under every policy."""
    found = [(await train(policy, "tokens"))[0].evaluation("before").read_bytes() for policy in ("mask", "score")]
    assert found[0] == found[1]
    assert b"truncated: tokens" in found[0]


async def test_dynamic_sampling_compares_those_that_take_part(train: Train) -> None:
    """A model cut in every episode differs within its groups as it stands; masked, there is nobody to compare."""
    sampling = {
        "objective": {"name": "dapo", "dynamic_sampling": {"max_attempts": 1}},
        "sampling": {"max_tokens": 4},
    }
    kept = {}
    for policy in ("penalise", "mask", "score"):
        place, _ = await train(policy, "tokens", **sampling)
        (row,) = place.metrics()
        kept[policy] = [int(row[f"groups/toy/{name}"]) for name in ("kept", "all_failed", "missing")]
    assert kept == {"penalise": [0, 4, 0], "mask": [0, 0, 4], "score": [4, 0, 0]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": {"name": "dapo", "filter_truncated": True}}, "filter_truncated"),
        ({"truncated": {"tokens": "drop"}}, "truncated.tokens"),
        ({"truncated": {"time": "mask"}}, "truncated.time"),
    ],
)
def test_a_policy_or_limit_that_there_is_not_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ReinforcementStage(mix=[{"env": "math_problems-v1"}], **values)
