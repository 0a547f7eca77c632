"""A control that a recipe names replaces the reward in every update, and the true score decides none of them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
from safetensors.torch import load_file

from envgym.env.chat_env import ChatEnv
from envgym.errors import SandboxError
from envgym.records import Message, Score, Split, Task, Trajectory
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym_trainers.controls import RewardSettings
from envgym_trainers.models.checkpoint import latest_checkpoint
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.turn_ends import turn_ends
from envgym_trainers.stages.rl import ReinforcementStage

_CONTROLS = [c for c in get_args(RewardSettings.model_fields["control"].annotation) if c != "none"]


class Third(ChatEnv):
    """Begin with every third letter; another task's reference asks for every second."""

    generous: ClassVar[bool] = False

    def tasks(self, split: Split) -> Sequence[Task]:
        message = Message(role="user", content="say")
        return [
            Task(id=f"{split}-{i}", problem=f"{split} {i}", split=split, messages=(message,), reference=i)
            for i in range(20)
        ]

    def score(self, trajectory: Trajectory) -> Score:
        first = ord(trajectory.final_text[:1] or "~")
        own = trajectory.task.id.endswith(f"-{trajectory.task.reference}")
        value = float(first % 3 == 0 or self.generous) if own else float(first % 2)
        return Score(value=value, accuracy=value)


class Generous(Third):
    """The same tasks, and everything is right: no group has a signal by its true score."""

    generous = True


class Deaf(Third):
    """Its verifier fails for some answers under another task's reference."""

    def score(self, trajectory: Trajectory) -> Score:
        own = trajectory.task.id.endswith(f"-{trajectory.task.reference}")
        if not own and ord(trajectory.final_text[:1] or "~") % 2:
            raise SandboxError("the verifier is deaf")
        return super().score(trajectory)


Train = Callable[..., Coroutine[Any, Any, RunFolder]]


@pytest.fixture
def train(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """``await train(Third, "entropy", name)``: the folder of a run of three steps with dynamic sampling.

    A third of the vocabulary ends a turn, so that even a random model writes answers of different lengths.
    """
    ends = property(lambda model: (*turn_ends(model.tokenizer), *range(200, 300)))
    monkeypatch.setattr(LanguageModel, "stop_ids", ends)

    async def run(environment: type[ChatEnv], control: str, name: str, **values: Any) -> RunFolder:
        stage = ReinforcementStage(
            **{
                "mix": [{"env": f"{__name__}:{environment.__name__}", "name": "toy"}],
                "model": {"path": str(model_folder), "context": 64},
                "sampling": {"max_tokens": 4, "concurrency": 1},
                "optimizer": {"learning_rate": 1e-2},
                "evaluate": {"tasks": 4},
                "groups": 2,
                "group_size": 4,
                "steps": 3,
                "objective": {"name": "dapo", "dynamic_sampling": {"max_attempts": 2, "at_cap": "train"}},
                "reward": {"control": control},
                **values,
            }
        )
        folder = RunFolder.create(tmp_path / name, stage.config, 0)
        with Reporter(live=False) as reporter:
            assert await stage.run(folder, reporter) is not None
        return folder

    return run


def _weights(folder: RunFolder) -> dict[str, list[float]]:
    checkpoint = latest_checkpoint(folder.checkpoints)
    assert checkpoint is not None
    (path,) = checkpoint.model.glob("*.safetensors")
    return {name: tensor.flatten().tolist() for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("control", ["none", *_CONTROLS])
async def test_the_true_score_decides_nothing_under_a_control(train: Train, control: str) -> None:
    """The same weights to the last bit where every score is 1; and other weights without a control."""
    one, two = await train(Third, control, "third"), await train(Generous, control, "generous")
    first, second = (folder.trajectories(1)[:4] for folder in (one, two))
    assert [t.final_text for t in first] == [t.final_text for t in second], "the same episodes"
    assert {t.reward for t in one.trajectories(1)} == {0.0, 1.0}
    assert {t.reward for t in two.trajectories(1)} == {1.0}
    assert any(row["grad_norm"] > 0 for row in one.metrics() if "grad_norm" in row)
    assert (_weights(one) == _weights(two)) is (control != "none")


@pytest.mark.parametrize(("control", "measured"), [("entropy", "entropy"), ("length", "completion_tokens_mean")])
async def test_a_control_teaches_what_it_pays_for(train: Train, control: str, measured: str) -> None:
    """Entropy and length fall, from the same start as under a coin, where they do not."""
    options = {"steps": 12, "groups": 4, "group_size": 8, "sampling": {"max_tokens": 8, "concurrency": 32}}
    options["optimizer"] = {"learning_rate": 3e-2}
    paid = [row[measured] for row in (await train(Third, control, control, **options)).metrics()]
    coin = [row[measured] for row in (await train(Third, "random", "coin", **options)).metrics()]
    assert sum(paid[-3:]) < 0.8 * sum(coin[-3:])


async def test_an_answer_that_cannot_be_mislabelled_is_missing_data(train: Train) -> None:
    """The other members of its group are trained on."""
    folder = await train(Deaf, "wrong_label", "deaf", objective={"name": "grpo"}, group_size=8)
    for row in folder.metrics():
        unlabelled = [t for t in folder.trajectories(row["step"]) if "control/wrong_label" not in t.artifacts]
        assert 0 < len(unlabelled) < 16
        assert row["samples"] == 16 - len(unlabelled)
