"""A recipe chooses its engine, its tool format, its type and its device; a stranger's plugin will do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pydantic
import pytest
import torch
from toys import numbered

from envgym.chat.tool_formats import HermesFormat
from envgym.config import validate_settings
from envgym.env.chat_env import ChatEnv
from envgym.env.tools import tool
from envgym.errors import RecipeError, UserError
from envgym.records import Message, Score, Split, Task, ToolCall, ToolSpec, Trajectory
from envgym.runs.folder import RunFolder
from envgym.runs.progress import Reporter
from envgym_trainers.engine.in_process import InProcessEngine
from envgym_trainers.engine.interface import (
    Engine,
    EngineSession,
    EngineStatistics,
    Sampled,
    SamplingParams,
    VersionSpan,
)
from envgym_trainers.engine.sampling import choose
from envgym_trainers.engine.scheduler import Scheduler
from envgym_trainers.learner.learner import Learner
from envgym_trainers.learner.mismatch import EngineMismatch
from envgym_trainers.models.checkpoint import latest_checkpoint
from envgym_trainers.models.context import cache_memory
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import ModelConfig, load_model
from envgym_trainers.recipe import ReinforcementRecipe
from envgym_trainers.stages.rl import ReinforcementStage
from envgym_trainers.stages.sft import SupervisedStage


class Say(ChatEnv):
    """Say a or b; the tool hears it."""

    def tasks(self, split: Split) -> Sequence[Task]:
        return numbered(split, 8, "say")

    @tool
    def hear(self, text: str) -> str:
        """Hear.

        Args:
            text: what is said.
        """
        return text

    def score(self, trajectory: Trajectory) -> Score:
        said = [turn.action.content for turn in trajectory.turns]
        value = {"a": 1.0, "b": 0.5}.get(said[-1] if said else "", 0.0)
        return Score(value=value, accuracy=float(value == 1.0))

    def gold(self, task: Task) -> Sequence[Message]:
        call = ToolCall(name="hear", arguments={"text": "hello"}, id="c")
        return [
            Message(role="assistant", content="", tool_calls=(call,)),
            Message(role="assistant", content="a"),
        ]


class Parrot(Engine):
    """Says one letter for ever."""

    class Config(Engine.Config):
        letter: str = pydantic.Field(default="a", description="what it says")

    config: Config
    published: ClassVar[list[int]] = []

    def __init__(self, **context: Any) -> None:
        super().__init__(**context)
        self._version = self.answered = 0

    @property
    def version(self) -> int:
        return self._version

    def open(self) -> EngineSession:
        return _ParrotSession(self)

    async def update_weights(self, language_model: LanguageModel, version: int) -> None:
        self._version = version
        self.published.append(version)

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(sampled_tokens=2 * self.answered, completions=self.answered)

    def check(self) -> None:
        """Never stops."""

    async def close(self) -> None:
        self.published.append(-1)


class _ParrotSession(EngineSession):
    def __init__(self, engine: Parrot) -> None:
        self._engine = engine
        self._length = 0

    @property
    def length(self) -> int:
        return self._length

    def rewrite(self) -> None:
        self._length = 0

    async def sample(self, new_ids: list[int], params: SamplingParams, *, seed: int) -> Sampled:
        engine = self._engine
        letter = engine.language_model.tokenizer.encode(engine.config.letter, add_special_tokens=False)
        ids = [*letter, engine.language_model.stop_ids[0]]
        self._length += len(new_ids) + len(ids)
        engine.answered += 1
        return Sampled(
            ids=ids, logprobs=[-0.5] * len(ids), ended=True, spans=(VersionSpan(engine.version, len(ids)),)
        )

    async def close(self) -> None:
        """Nothing is held."""


class Loud(HermesFormat):
    """Whatever a model writes, it calls ``hear``."""

    rendered: ClassVar[list[str]] = []

    def parse(self, text: str) -> Message:
        call = ToolCall(name="hear", arguments={"text": "loud"}, id="c")
        return Message(role="assistant", content="a", tool_calls=(call,))

    def render(self, message: Message) -> str:
        text = f"LOUD {message.content}"
        self.rendered.append(text)
        return text

    def describe(self, tools: Sequence[ToolSpec]) -> str:
        return "Be loud."


def _path(kind: type) -> str:
    return f"{kind.__module__}:{kind.__name__}"


def _recipe(model: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {
        "mix": [{"env": _path(Say), "name": "say", "settings": {"max_turns": 2}}],
        "model": {"context": 96, **model},
        "sampling": {"max_tokens": 3, "concurrency": 6},
        "evaluate": {"tasks": 2},
        "checkpoint_every": 1,
        **values,
    }


Train = Callable[..., Coroutine[Any, Any, RunFolder]]


@pytest.fixture
def train(model_folder: Path, tmp_path: Path) -> Train:
    """``await train(model={…}, engine={…})``: the folder of a run of two steps."""

    async def run(model: dict[str, Any] | None = None, *, name: str = "run", **values: Any) -> RunFolder:
        recipe = _recipe({"path": str(model_folder), **(model or {})}, **values)
        recipe |= {"steps": 2, "groups": 1, "group_size": 2, "objective": {"name": "grpo"}}
        stage = ReinforcementStage(**recipe)
        folder = RunFolder.create(tmp_path / name, stage.config, 0)
        with Reporter(live=False) as reporter:
            assert await stage.run(folder, reporter) is not None
        return folder

    return run


@pytest.mark.parametrize(("settings", "reward"), [({}, 1.0), ({"letter": "b"}, 0.5)])
async def test_a_strangers_engine_with_its_settings(train: Train, settings: dict[str, Any], reward: float) -> None:
    """The run samples from it, tells it of every version, counts by its statistics, and closes it."""
    Parrot.published.clear()
    # It says nothing true of its log-probs, and would be caught.
    rows = (await train(engine={"name": _path(Parrot), **settings}, mismatch_limit=1e9)).metrics()
    assert [row["reward/say"] for row in rows] == [reward, reward]
    assert [row["sampled_tokens"] for row in rows] == [4, 4]
    assert [row["completion_tokens_mean"] for row in rows] == [2, 2]
    assert Parrot.published == [1, 2, -1]


async def test_an_engine_that_tells_other_log_probs_stops_the_run_at_the_first_step(train: Train) -> None:
    with pytest.raises(EngineMismatch, match="nats off the trainer's on average"):
        await train(engine={"name": _path(Parrot)})


@pytest.mark.parametrize(("engine", "tokens"), [("in_process", None), ({"memory": 0.01}, 2**30 // 100)])
async def test_the_engines_memory(
    train: Train, monkeypatch: pytest.MonkeyPatch, engine: Any, tokens: int | None
) -> None:
    made: list[int] = []
    real = Scheduler.__init__

    def init(self: Scheduler, *args: Any, **values: Any) -> None:
        real(self, *args, **values)
        made.append(values["memory"])

    monkeypatch.setattr(Scheduler, "__init__", init)
    await train(engine=engine)
    assert made == [cache_memory(torch.device("cpu")) if tokens is None else tokens]


async def test_the_engine_rests_while_the_learner_needs_the_memory(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each update there are keys, during it there are none."""
    engines: list[InProcessEngine] = []
    sizes: list[tuple[int, int]] = []
    real, learn = InProcessEngine.__init__, Learner.learn

    def init(self: InProcessEngine, **values: Any) -> None:
        real(self, **values)
        engines.append(self)
        rest = self._loop.scheduler.rest

        def watched() -> None:
            sizes.append((self._loop.scheduler._cache.tokens, -1))
            rest()

        monkeypatch.setattr(self._loop.scheduler, "rest", watched)

    def learning(self: Learner, *args: Any) -> Any:
        sizes[-1] = sizes[-1][0], engines[0]._loop.scheduler._cache.tokens
        return learn(self, *args)

    monkeypatch.setattr(InProcessEngine, "__init__", init)
    monkeypatch.setattr(Learner, "learn", learning)
    await train()
    assert sizes
    assert all(before > 0 and during == 0 for before, during in sizes)


async def test_memory_for_less_than_one_conversation_ends_the_run_at_the_start(train: Train) -> None:
    with pytest.raises(UserError, match=r"raise engine\.memory to .* or lower model\.context"):
        await train(engine={"memory": 1e-5})


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
async def test_sampled_evaluation_chooses_from_the_likeliest_ids(
    train: Train, monkeypatch: pytest.MonkeyPatch, cut: dict[str, float]
) -> None:
    """Cut down to one id, what is sampled in evaluation is certain, and what is sampled in training is not."""
    seen: dict[bool, list[float]] = {True: [], False: []}
    real = choose

    def watched(logits: Any, uniform: Any, params: Sequence[SamplingParams]) -> Any:
        tokens, logprobs = real(logits, uniform, params)
        for one, logprob in zip(params, logprobs.tolist(), strict=True):
            if one.temperature:
                seen[any(getattr(one, name) == value for name, value in cut.items())].append(logprob)
        return tokens, logprobs

    monkeypatch.setattr("envgym_trainers.engine.scheduler.choose", watched)
    await train(evaluate={"tasks": 2, **cut})
    assert seen[True] == [0.0] * len(seen[True])
    assert seen[True]
    assert min(seen[False]) < -0.1


@pytest.mark.parametrize("cut", [{"top_k": 4}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_training_on_truncated_samples_is_refused(cut: dict[str, float]) -> None:
    """Each message says why, and what is possible."""
    name = next(iter(cut))
    with pytest.raises(RecipeError, match=rf"{name}: training samples from the whole .* evaluate\.{name}"):
        validate_settings(ReinforcementRecipe, _recipe({}, sampling=cut), "recipe")


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"memoy": 3}, "engine 'in_process': unknown key 'memoy'; did you mean 'memory'"),
        ({"name": "in_proces"}, "did you mean 'in_process'"),
        ({"memory": 0}, "greater than 0"),
        ({"name": _path(Loud)}, "is not an engine"),
    ],
)
def test_a_wrong_engine_is_refused_before_anything_is_loaded(engine: dict[str, Any], message: str) -> None:
    with pytest.raises((RecipeError, UserError), match=message):
        validate_settings(ReinforcementRecipe, _recipe({}, engine=engine), "recipe")


def test_a_saved_recipe_keeps_the_engines_settings() -> None:
    """The resolved recipe of a run is what ``--resume`` reads."""
    recipe = ReinforcementRecipe.model_validate(_recipe({}, engine={"memory": 3}))
    assert recipe.model_dump()["engine"] == {"name": "in_process", "memory": 3}
    assert ReinforcementRecipe.model_validate(recipe.model_dump()) == recipe


async def test_a_tool_format_decides_what_is_parsed(train: Train) -> None:
    hermes = (await train(name="hermes")).metrics()
    loud = (await train({"tool_format": _path(Loud)}, name="loud")).metrics()
    assert [row["reward/say"] for row in hermes] == [0, 0]
    assert [row["reward/say"] for row in loud] == [1, 1]


async def test_a_tool_format_decides_what_is_imitated(tmp_path: Path) -> None:
    Loud.rendered.clear()
    stage = SupervisedStage(
        **_recipe(
            {"tool_format": _path(Loud), "dtype": "bfloat16", "new": {"vocabulary": 300, "hidden_size": 16}},
            examples=4,
            batch_size=4,
        )
    )
    folder = RunFolder.create(tmp_path / "run", stage.config, 0)
    with Reporter(live=False) as reporter:
        assert await stage.run(folder, reporter) is not None
    assert {"LOUD ", "LOUD a"} == set(Loud.rendered)
    checkpoint = latest_checkpoint(folder.checkpoints)
    assert checkpoint is not None
    saved = load_model(ModelConfig(path=str(checkpoint.model), dtype="bfloat16"))
    assert saved.tokenizer.encode("LOUD") == saved.tokenizer.encode("LOUD ")[:1], "a word of its vocabulary"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_the_type_of_the_weights(train: Train, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """The engine and what is saved are of it."""
    seen: list[torch.dtype] = []
    real = InProcessEngine.__init__

    def init(self: InProcessEngine, **values: Any) -> None:
        real(self, **values)
        seen.append(self.language_model.dtype)

    monkeypatch.setattr(InProcessEngine, "__init__", init)
    await train({"dtype": dtype})
    assert seen == [getattr(torch, dtype)]


async def test_a_device_that_is_not_there_is_refused(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="model.device = 'cuda'"):
        await train({"device": "cuda"})
    await train({"device": "cpu"}, name="cpu")
