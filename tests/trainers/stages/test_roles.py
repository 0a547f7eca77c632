"""Self-verification and self-play are environments like any other; each role has its own baseline and metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from torch import Tensor

from envgym.env.chat_env import ChatEnv
from envgym.errors import UserError
from envgym.policies.interface import Completion, Policy, PolicySession
from envgym.records import Message, Observation, Score, Split, Task, ToolSpec, Trajectory
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym_trainers.objectives.grpo import GRPO
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.rl import ReinforcementStage

_GROUPS, _SIZE = 4, 6


def ask(text: str, reference: bool | None = None, split: Split = "train") -> Task:
    return Task(id=text, split=split, messages=(Message(role="user", content=text),), reference=reference)


def is_letter(text: str) -> bool:
    return text[:1].isascii() and text[:1].isalpha()


class Verifier(ChatEnv):
    """Judge an answer: begin with a letter if it is right. Worth 1 for agreeing with the truth."""

    def score(self, trajectory: Trajectory) -> Score:
        right = float(is_letter(trajectory.final_text) == trajectory.task.reference)
        return Score(value=right, accuracy=right)


class Solver(ChatEnv):
    """Answer with a letter; then the policy judges its own answer. Worth 1 for being right."""

    roles = ("verifier",)

    def tasks(self, split: Split) -> Sequence[Task]:
        return [ask(f"{split} {i}", split=split) for i in range(50)]

    async def conclude(self) -> None:
        answer = self.trajectory.final_text
        task = ask(f"{answer}: right?", is_letter(answer))
        await self.services.play(Verifier(services=self.services), task, role="verifier")

    def score(self, trajectory: Trajectory) -> Score:
        (verdict,) = trajectory.nested
        right = float(is_letter(trajectory.final_text))
        return Score(value=right, accuracy=right, metrics={"believed": float(is_letter(verdict.final_text))})


class Answerer(ChatEnv):
    """Answer whatever is asked with a letter."""

    def score(self, trajectory: Trajectory) -> Score:
        right = float(is_letter(trajectory.final_text))
        return Score(value=right, accuracy=right)


class Asker(ChatEnv):
    """Pose a question; the policy answers it twice. Worth most where answers differ: 4 p (1 - p)."""

    roles = ("answerer",)

    def tasks(self, split: Split) -> Sequence[Task]:
        return [ask(f"{split} {i}", split=split) for i in range(50)]

    async def conclude(self) -> None:
        for _ in range(2):
            await self.services.play(f"{__name__}:Answerer", ask(self.trajectory.final_text), role="answerer")

    def score(self, trajectory: Trajectory) -> Score:
        share = sum(t.reward for t in trajectory.nested) / len(trajectory.nested)
        return Score(value=4 * share * (1 - share), accuracy=share)


class Spy(GRPO):
    """GRPO that notes the rewards which it normalises together."""

    seen: ClassVar[list[list[float]]] = []

    def advantages(self, rewards: Tensor) -> Tensor:
        self.seen.append(rewards.tolist())
        return super().advantages(rewards)


class Yes(Policy):
    """Says its word, whatever it is asked."""

    class Config(Policy.Config):
        word: str = "yes"

    config: Config
    made: ClassVar[list[Yes]] = []

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.made.append(self)
        self.closes = 0

    def open(self, tools: Sequence[ToolSpec], seed: int) -> PolicySession:
        return _Saying(self.config.word)

    async def close(self) -> None:
        self.closes += 1


class _Saying(PolicySession):
    def __init__(self, word: str) -> None:
        self._word = word

    async def act(self, observation: Observation) -> Completion:
        return Completion(message=Message(role="assistant", content=self._word))


Train = Callable[..., Coroutine[Any, Any, RunFolder]]


@pytest.fixture
def train(model_folder: Path, tmp_path: Path) -> Train:
    """``await train(environment, steps=…)``: the folder of a run of three steps with the ``Spy`` objective."""
    Spy.seen.clear()
    Yes.made.clear()

    async def run(environment: type[ChatEnv], **values: Any) -> RunFolder:
        recipe = ReinforcementRecipe.model_validate(
            {
                "mix": [{"env": f"{__name__}:{environment.__name__}", "name": "toy"}],
                "model": {"path": str(model_folder), "context": 64},
                "sampling": {"max_tokens": 1},
                "optimizer": {"learning_rate": 1e-2},
                "evaluate": {"tasks": 4},
                "groups": _GROUPS,
                "group_size": _SIZE,
                "steps": 3,
                "objective": {"name": f"{__name__}:Spy"},
                **values,
            }
        )
        folder = RunFolder.create(tmp_path / "run", recipe, recipe.seed)
        with Reporter(live=False) as reporter:
            await ReinforcementStage(**recipe.model_dump()).run(folder, reporter)
        return folder

    return run


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("environment", "role", "nested"), [(Solver, "verifier", 1), (Asker, "answerer", 2)], ids=["solver", "asker"]
)
async def test_every_role_is_normalised_by_itself_and_trained_on(
    train: Train, environment: type[ChatEnv], role: str, nested: int
) -> None:
    folder = await train(environment)
    rows = folder.metrics()
    assert len(rows) == 3
    units = {tuple(sorted(rewards)) for rewards in Spy.seen}
    assert {len(unit) for unit in units} == {_SIZE, nested * _SIZE}
    for row in rows:
        played = folder.trajectories(row["step"])
        parts = [inner for t in played for inner in t.nested]
        assert {t.role for t in parts} == {role}
        assert row["samples"] == len(played) + len(parts) == _GROUPS * _SIZE * (1 + nested)
        assert row["reward/toy"] == pytest.approx(_mean([t.reward for t in played]))
        assert row[f"reward/toy/{role}"] == pytest.approx(_mean([t.reward for t in parts]))
        for members in _groups(played):
            assert tuple(sorted(t.reward for t in members)) in units
            assert tuple(sorted(i.reward for t in members for i in t.nested)) in units
    assert any(row["grad_norm"] > 0 for row in rows)


def _groups(played: Sequence[Trajectory]) -> list[list[Trajectory]]:
    found: dict[str, list[Trajectory]] = {}
    for trajectory in played:
        found.setdefault(trajectory.task.id, []).append(trajectory)
    return list(found.values())


async def test_a_verifier_learns_from_the_truth_while_its_solver_learns_the_task(train: Train) -> None:
    """One model in both roles; what is right for one says nothing about the other."""
    rows = (await train(Solver, steps=24, groups=8, group_size=8)).metrics()
    for name, chance in (("reward/toy", 0.4), ("reward/toy/verifier", 0.75)):
        assert _mean([row[name] for row in rows[:4]]) < chance, name
        assert _mean([row[name] for row in rows[-4:]]) > 0.85, name


async def test_a_recipe_may_name_who_plays_a_role_and_it_is_not_trained(train: Train) -> None:
    """The verifier that always says no letter is right where the answer is wrong; one instance serves the run."""
    roles = {"verifier": {"policy": f"{__name__}:Yes", "settings": {"word": "?"}}}
    folder = await train(Solver, roles=roles)
    for row in folder.metrics():
        assert row["samples"] == _GROUPS * _SIZE
        assert row["reward/toy/verifier"] == pytest.approx(1 - row["reward/toy"])
        parts = [inner for t in folder.trajectories(row["step"]) for inner in t.nested]
        assert {t.final_text for t in parts} == {"?"}
        assert all(turn.tokens is None for t in parts for turn in t.turns)
    assert [policy.closes for policy in Yes.made] == [1]


async def test_another_model_in_a_role_is_not_trained_on(train: Train, model_folder: Path) -> None:
    """It samples tokens of its own, which the policy's objective must not see."""
    settings = {"max_tokens": 1, "context": 64}
    folder = await train(Solver, steps=1, roles={"verifier": {"policy": str(model_folder), "settings": settings}})
    (row,) = folder.metrics()
    assert row["samples"] == _GROUPS * _SIZE
    assert not math.isnan(row["reward/toy/verifier"])


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"verifer": {"policy": "empty"}}, "roles.verifer: no environment of the mix has that role; .*: verifier"),
        ({"verifier": {"policy": "emty"}}, "unknown policy 'emty'; did you mean 'empty'"),
        ({"verifier": {"policy": "gold", "settings": {"x": 1}}}, "policy 'gold' has no settings"),
        ({"verifier": {"policy": "empty", "settings": {"x": 1}}}, "unknown key 'x'"),
    ],
)
async def test_a_wrong_role_is_refused(train: Train, roles: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        await train(Solver, roles=roles)
