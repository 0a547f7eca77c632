"""A run that has nothing left to learn ends well: saved, measured, and it says why."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from envgym.env.chat_env import ChatEnv
from envgym.errors import UserError
from envgym.records import Message, Score, Split, Task, Trajectory
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym_trainers.models.checkpoint import latest_checkpoint
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.exhaustion import Exhaustion
from envgym_trainers.stages.rl import ReinforcementStage


class Solved(ChatEnv):
    """Gives the reward away."""

    worth = 1.0

    def tasks(self, split: Split) -> Sequence[Task]:
        asked = Message(role="user", content="?")
        return [Task(id=f"{split}-{i}", problem=f"{split} {i}", split=split, messages=(asked,)) for i in range(50)]

    def score(self, trajectory: Trajectory) -> Score:
        return Score(value=self.worth, accuracy=self.worth)


class Hopeless(Solved):
    """Never gives a reward."""

    worth = 0.0


class Style(Solved):
    """Success is the same for all, the reward is not: there is something to learn."""

    def score(self, trajectory: Trajectory) -> Score:
        return Score(value=float(len(trajectory.final_text) % 2), accuracy=0.0)


Train = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


@pytest.fixture
def train(model_folder: Path, tmp_path: Path) -> Train:
    """``await train(environment, objective, steps=…)``: the summary of a run, which goes on where one was."""

    async def run(environment: type[ChatEnv], objective: dict[str, Any], **values: Any) -> dict[str, Any]:
        recipe = ReinforcementRecipe.model_validate(
            {
                "mix": [{"env": f"{environment.__module__}:{environment.__name__}", "name": "toy"}],
                "model": {"path": str(model_folder), "context": 32},
                "sampling": {"max_tokens": 4},
                "evaluate": {"tasks": 2},
                "groups": 2,
                "group_size": 2,
                "checkpoint_every": 100,
                "objective": objective,
                **values,
            }
        )
        path = tmp_path / "run"
        place = RunFolder.existing(path) if path.exists() else RunFolder.create(path, recipe, recipe.seed)
        with Reporter(live=False) as reporter:
            summary = await ReinforcementStage(**recipe.model_dump()).run(place, reporter)
        assert summary is not None
        checkpoint = latest_checkpoint(place.checkpoints)
        assert checkpoint is not None
        assert checkpoint.folder.name == f"step-{summary['steps']:06d}", "the last step is saved"
        return summary

    return run


def _dapo(**sampling: Any) -> dict[str, Any]:
    return {"name": "dapo", "overlong": False, "dynamic_sampling": {"max_attempts": 1, **sampling}}


@pytest.mark.parametrize(("environment", "fate"), [(Solved, "solved"), (Hopeless, "failed")])
@pytest.mark.parametrize(
    ("objective", "steps"),
    [
        (_dapo(at_cap="stop"), 1),
        (_dapo(at_cap="stop", max_empty_steps=3), 1),
        (_dapo(at_cap="train"), 5),
        (_dapo(max_empty_steps=2), 2),
        ({"name": "dapo", "overlong": False, "dynamic_sampling": False}, 5),
        ({"name": "grpo"}, 5),
        ({"name": "dpo"}, 5),
    ],
    ids=["stop", "stop at once", "train", "two steps", "no sampling", "grpo", "dpo"],
)
async def test_a_run_with_nothing_left_to_learn_ends_well(
    train: Train, objective: dict[str, Any], steps: int, environment: type[Solved], fate: str
) -> None:
    summary = await train(environment, objective, steps=7)
    assert summary["steps"] == steps
    spell = "one step" if steps == 1 else f"{steps} steps in a row"
    assert summary["ended"] == f"nothing to learn from in {spell}: every group was {fate}"
    assert summary["environments"]["toy"]["greedy"]["after"]["mean"] == environment.worth


async def test_a_step_that_is_not_full_is_an_error_where_asked(train: Train) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await train(Solved, _dapo(at_cap="raise"), steps=7)
    assert caught.group_contains(UserError, match="found 0 of 2 groups with a signal")


@pytest.mark.parametrize(("environment", "objective"), [(Style, "grpo"), (Solved, "ppo")])
async def test_a_run_that_can_learn_goes_on(train: Train, environment: type[ChatEnv], objective: str) -> None:
    """Equal success is no reason to end: rewards may differ, and a critic has advantages for a lone episode."""
    summary = await train(environment, {"name": objective}, steps=7)
    assert (summary["steps"], summary["ended"]) == (7, "all steps done")


async def test_a_run_whose_members_are_all_masked_says_so(train: Train) -> None:
    """A model that never ends its turn in one token leaves nobody to compare."""
    masked = {"sampling": {"max_tokens": 1}, "truncated": {"tokens": "mask"}}
    summary = await train(Style, {"name": "grpo"}, steps=7, **masked)
    assert summary["steps"] == 5
    assert "no group had two members left to compare" in summary["ended"]


async def test_a_resumed_run_goes_on_counting(train: Train) -> None:
    """Three silent steps before and two after make five."""
    first = await train(Solved, {"name": "grpo"}, steps=3)
    assert first["ended"] == "all steps done"
    resumed = await train(Solved, {"name": "grpo"}, steps=9)
    assert resumed["steps"] == 5
    assert "5 steps in a row: every group was solved" in resumed["ended"]


def test_only_steps_in_a_row_count() -> None:
    exhaustion = Exhaustion(2)
    for learnt in (False, True, False):
        exhaustion.note({"all_failed": 1, "generated": 1}, learnt=learnt)
        assert exhaustion.reason == ""
    exhaustion.note({"all_solved": 2, "generated": 2}, learnt=False)
    assert "2 groups were solved by every member and 1 by none" in exhaustion.reason
