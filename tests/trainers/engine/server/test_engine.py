"""Engines of servers: weights, replicas, and what is said of a server that fails, with real models behind HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from envgym.errors import PolicyError, UserError
from envgym_trainers.engine.interface import Sampled, SamplingParams, VersionSpan
from envgym_trainers.engine.server.errors import (
    OtherModel,
    OtherTrainer,
    OtherWeights,
    ServerFailure,
    UnfitServer,
)
from envgym_trainers.engine.server.labels import RELEASED, Labels, is_published
from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.models.load import ModelConfig, load_model
from envgym_trainers.testing.servers import ModelServer, SGLangServer, VllmServer
from envgym_trainers.testing.servers.serving import HttpReply

PROMPT = [9, 10, 11, 12]
PARAMS = SamplingParams(max_tokens=4)
LONG = 40
"""Tokens of a completion that takes a while where each waits 20 ms."""

Open = Callable[..., Any]


def gap(model: LanguageModel, prompt: list[int], sampled: Sampled, part: slice = slice(None)) -> float:
    """Return the largest difference from a plain forward pass."""
    ids = torch.tensor([[*prompt, *sampled.ids]])
    with torch.no_grad():
        logits = model.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    own = torch.log_softmax(logits, dim=-1).gather(1, ids[0, len(prompt) :, None])[:, 0]
    return float((own - torch.tensor(sampled.logprobs))[part].abs().max())


def slowly(server: ModelServer, seconds: float = 0.02) -> None:
    """Let every token take its time."""
    forward = server._base.forward

    def slow(*args: Any, **values: Any) -> Any:
        server._condition.wait(seconds)
        return forward(*args, **values)

    server._base.forward = slow


def endless(language_model: LanguageModel) -> LanguageModel:
    """Let no id end a turn."""
    vars(language_model)["stop_ids"] = ()
    return language_model


async def long_completion(engine: Any) -> asyncio.Task[Sampled]:
    """Begin one that takes a while, and wait until it is under way."""
    task = asyncio.ensure_future(engine.open().sample(PROMPT, SamplingParams(max_tokens=LONG), seed=5))
    await asyncio.sleep(0.3)
    assert not task.done()
    return task


async def test_a_completion_under_way_goes_on_with_new_weights_and_says_which_sampled_what(
    dialect: str, server: ModelServer, open_engine: Open, language_model: LanguageModel, shake: Callable[..., None]
) -> None:
    engine = open_engine(dialect, server.url, of=endless(language_model))
    await engine.open().sample(PROMPT, PARAMS, seed=0)
    slowly(server)
    old = copy.deepcopy(language_model)
    task = await long_completion(engine)
    shake(language_model, 7)
    await engine.update_weights(language_model, 3)
    sampled = await task
    assert [span.version for span in sampled.spans] == [0, 3]
    first = sampled.spans[0].tokens
    assert gap(old, PROMPT, sampled, slice(0, first)) < 1e-4
    assert gap(language_model, PROMPT, sampled, slice(first, None)) < 1e-4
    assert sampled.version == 0


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks the old way
async def test_adapters_alone_are_published_and_completions_under_way_are_put_together_again(
    dialect: str,
    open_engine: Open,
    make_language_model: Callable[[], LanguageModel],
    model_folder: Path,
) -> None:
    """The server's own weights never change; every version is a further adapter, and the last one stays."""
    adapted = load_model(ModelConfig(path=str(model_folder), lora_rank=2))
    kinds: dict[str, type[ModelServer]] = {"vllm": VllmServer, "sglang": SGLangServer}
    with kinds[dialect](make_language_model()) as server:
        engine = open_engine(dialect, server.url, of=endless(adapted), publish="lora")
        sampled = await engine.open().sample(PROMPT, PARAMS, seed=0)
        assert gap(adapted, PROMPT, sampled) < 1e-4
        # The adapter that samples is made slow as well.
        slowly_adapter(server)
        task = await long_completion(engine)
        _move_adapters(adapted)
        await engine.update_weights(adapted, 1)
        spans = (await task).spans
        assert [span.version for span in spans] == [0, 1]
        assert sum(span.tokens for span in spans) == LONG
        assert gap(adapted, PROMPT, await engine.open().sample(PROMPT, PARAMS, seed=1)) < 1e-4
        await engine.update_weights(adapted, 2)
        assert len(server.names) == 2
        assert server.names[1] == server.label


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
async def test_a_request_that_arrives_after_its_adapter_was_unloaded_is_made_again(
    dialect: str, open_engine: Open, make_language_model: Callable[[], LanguageModel], model_folder: Path
) -> None:
    """It waits on its way while the next adapter takes the place of the one that it names."""
    adapted = load_model(ModelConfig(path=str(model_folder), lora_rank=2))
    kinds: dict[str, type[ModelServer]] = {"vllm": VllmServer, "sglang": SGLangServer}
    with kinds[dialect](make_language_model()) as server:
        engine = open_engine(dialect, server.url, of=endless(adapted), publish="lora")
        await engine.open().sample(PROMPT, PARAMS, seed=0)
        (old,) = server.names[1:]
        held = threading.Event()

        def hold(path: str, body: Any) -> None:
            if path.startswith(engine.dialect.generate) and old in json.dumps(body):
                held.set()
                while old in server.names:
                    time.sleep(0.01)

        server.intercept = hold
        task = asyncio.create_task(engine.open().sample(PROMPT, PARAMS, seed=1))
        assert await asyncio.to_thread(held.wait, 30)
        _move_adapters(adapted)
        await engine.update_weights(adapted, 1)
        sampled = await task
        assert sampled.version == 1
        assert gap(adapted, PROMPT, sampled) < 1e-4


def slowly_adapter(server: ModelServer) -> None:
    (adapter,) = server._adapters.values()
    forward = adapter.forward

    def slow(*args: Any, **values: Any) -> Any:
        server._condition.wait(0.02)
        return forward(*args, **values)

    adapter.forward = slow


@torch.no_grad()
def _move_adapters(language_model: LanguageModel) -> None:
    for name, parameter in language_model.model.named_parameters():
        if "lora_" in name:
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.2)


async def test_adapters_need_a_model_that_has_some(vllm: VllmServer, open_engine: Open) -> None:
    engine = open_engine("vllm", vllm.url, publish="lora")
    with pytest.raises(UserError, match="lora_rank"):
        await engine.open().sample(PROMPT, PARAMS, seed=0)


async def test_weights_that_a_server_does_not_take_over_are_noticed(
    dialect: str, server: ModelServer, open_engine: Open, language_model: LanguageModel, shake: Callable[..., None]
) -> None:
    """It says that all went well, and samples from the old ones."""
    engine = open_engine(dialect, server.url)
    await engine.open().sample(PROMPT, PARAMS, seed=0)
    server.load = lambda tensors: None  # type: ignore[method-assign]
    shake(language_model, 7)
    with pytest.raises(OtherWeights, match=rf"{server.url}.*nats off.*stale.*resume"):
        await engine.update_weights(language_model, 1)


async def test_another_model_is_refused_at_once(
    dialect: str, server: ModelServer, open_engine: Open, language_model: LanguageModel, shake: Callable[..., None]
) -> None:
    other = copy.deepcopy(language_model)
    shake(other, 9)
    engine = open_engine(dialect, server.url, of=other)
    with pytest.raises(OtherWeights, match=rf"{server.url}.*other weights.*start it with the model of the recipe"):
        await engine.open().sample(PROMPT, PARAMS, seed=0)
    assert server.label == "default", "nobody owns a server that was refused"


async def test_the_tolerance_is_a_setting(
    vllm: VllmServer, open_engine: Open, language_model: LanguageModel, shake: Callable[..., None]
) -> None:
    other = copy.deepcopy(language_model)
    shake(other, 9)
    engine = open_engine("vllm", vllm.url, of=other, tolerance=1000.0)
    assert len((await engine.open().sample(PROMPT, PARAMS, seed=0)).ids) == 4


async def test_log_probs_before_temperature_are_refused_with_the_flag(
    vllm: VllmServer, open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = vllm.sample

    def raw(ids: list[int], *, temperature: float, **values: Any) -> Any:
        made = sample(ids, temperature=temperature, **values)
        table = torch.log_softmax(vllm._base(input_ids=torch.tensor([ids + made.ids])).logits[0], dim=-1)
        made.logprobs = [float(table[len(ids) - 1 + i, token]) for i, token in enumerate(made.ids)]
        return made

    monkeypatch.setattr(vllm, "sample", raw)
    with pytest.raises(OtherWeights, match="before temperature.*processed_logprobs"):
        await open_engine("vllm", vllm.url).open().sample(PROMPT, PARAMS, seed=0)


async def test_a_context_smaller_than_the_recipes_is_refused(
    dialect: str, server: ModelServer, open_engine: Open
) -> None:
    server.context = 100
    with pytest.raises(OtherModel, match=r"100 tokens, and model.context is 128.*lower model.context"):
        await open_engine(dialect, server.url).open().sample(PROMPT, PARAMS, seed=0)


async def test_a_name_that_the_server_does_not_know_is_refused(vllm: VllmServer, open_engine: Open) -> None:
    assert (await open_engine("vllm", vllm.url, model="served").open().sample(PROMPT, PARAMS, seed=0)).ids
    with pytest.raises(OtherModel, match="no model 'other', but served; .*engine.model"):
        await open_engine("vllm", vllm.url, model="other").open().sample(PROMPT, PARAMS, seed=0)


async def test_two_trainers_on_one_server_the_second_is_refused(
    dialect: str, server: ModelServer, open_engine: Open
) -> None:
    first, second = (open_engine(dialect, server.url) for _ in range(2))
    await first.open().sample(PROMPT, PARAMS, seed=0)
    with pytest.raises(OtherTrainer, match=rf"{server.url}.*another trainer.*servers of its own.*take_over"):
        await second.open().sample(PROMPT, PARAMS, seed=0)
    assert (await first.open().sample(PROMPT, PARAMS, seed=0)).ids


async def test_whose_server_is_taken_over_trains_on_nothing_that_the_other_sampled(
    dialect: str, server: ModelServer, open_engine: Open, language_model: LanguageModel, shake: Callable[..., None]
) -> None:
    first, second = open_engine(dialect, server.url), open_engine(dialect, server.url, take_over=True)
    await first.open().sample(PROMPT, PARAMS, seed=0)
    await second.open().sample(PROMPT, PARAMS, seed=0)
    with pytest.raises(OtherTrainer, match="another trainer published"):
        await first.open().sample(PROMPT, PARAMS, seed=0)
    with pytest.raises(OtherTrainer):
        await first.update_weights(language_model, 1)
    await first.close()
    assert (await second.open().sample(PROMPT, PARAMS, seed=0)).ids, "who leaves takes nothing from who took over"


@pytest.mark.parametrize(
    "left", [RELEASED, Labels(process=2**22 + 1).of(17)], ids=["released", "by a dead process"]
)
async def test_weights_that_an_earlier_trainer_left_are_replaced(
    dialect: str,
    server: ModelServer,
    open_engine: Open,
    language_model: LanguageModel,
    shake: Callable[..., None],
    left: str,
) -> None:
    other = copy.deepcopy(language_model)
    shake(other, 9)
    server.load(other.weights())
    server.label = left
    sampled = await open_engine(dialect, server.url).open().sample(PROMPT, PARAMS, seed=0)
    assert gap(language_model, PROMPT, sampled) < 1e-4
    assert sampled.spans == (VersionSpan(0, 4),)


async def test_an_engine_that_is_closed_leaves_its_servers_to_others(
    dialect: str, server: ModelServer, open_engine: Open
) -> None:
    engine = open_engine(dialect, server.url)
    await engine.open().sample(PROMPT, PARAMS, seed=0)
    assert is_published(server.label)
    await engine.close()
    assert server.label == RELEASED


async def test_conversations_are_spread_and_each_keeps_its_server(
    dialect: str, language_model: LanguageModel, server: ModelServer, open_engine: Open
) -> None:
    with type(server)(language_model) as other:
        engine = open_engine(dialect, server.url, other.url)
        sessions = [engine.open() for _ in range(6)]
        for turn in range(2):
            await asyncio.gather(*(s.sample(PROMPT, PARAMS, seed=turn) for s in sessions))
        path = engine.dialect.generate
        for one in (server, other):
            asked = [body for seen, body in one.seen if seen == path][1:]  # the first was compared
            assert len(asked) == 6
        await sessions[1].close()
        before = len(other.seen)
        await engine.open().sample(PROMPT, PARAMS, seed=9)
        assert len(other.seen) == before + 1, "the next goes where one has left"


async def test_a_server_that_dies_costs_its_episodes_and_the_others_go_on(
    dialect: str, language_model: LanguageModel, server: ModelServer, open_engine: Open
) -> None:
    """New conversations avoid it; the next weights end the run, and name it."""
    with type(server)(language_model) as other:
        engine = open_engine(dialect, server.url, other.url)
        first, second = engine.open(), engine.open()
        await asyncio.gather(*(s.sample(PROMPT, PARAMS, seed=0) for s in (first, second)))
        server.stop()
        with quick_retries(engine), pytest.raises(ServerFailure, match=rf"{server.url}.*down.*start it again"):
            await first.sample([9], PARAMS, seed=0)
        engine.check()
        assert (await second.sample([9], PARAMS, seed=0)).ids
        assert all([(await engine.open().sample(PROMPT, PARAMS, seed=n)).ids for n in range(3)])
        with pytest.raises(ServerFailure, match=server.url):
            await engine.update_weights(language_model, 1)


@contextlib.contextmanager
def impatient(engine: Any) -> Iterator[None]:
    """Give no answer more than 0.3 seconds. The setting itself is turned in a recipe."""
    with quick_retries(engine), pytest.MonkeyPatch.context() as patch:
        for server in engine._servers:
            patch.setattr(server._web, "_timeout", 0.3)
        yield


@contextlib.contextmanager
def quick_retries(engine: Any) -> Iterator[None]:
    """Let nobody wait between two attempts."""
    with pytest.MonkeyPatch.context() as patch:
        for server in engine._servers:
            patch.setattr(server._web, "_pause", 0.001)
        yield


async def test_an_engine_whose_only_server_died_says_so(
    dialect: str, server: ModelServer, open_engine: Open
) -> None:
    engine = open_engine(dialect, server.url)
    session = engine.open()
    await session.sample(PROMPT, PARAMS, seed=0)
    server.stop()
    with quick_retries(engine), pytest.raises(ServerFailure):
        await session.sample([9], PARAMS, seed=0)
    with pytest.raises(PolicyError, match=rf"{server.url}.*down"):
        engine.check()


async def test_a_server_that_is_not_there_at_the_beginning_ends_the_run(dialect: str, open_engine: Open) -> None:
    engine = open_engine(dialect, "http://127.0.0.1:9")
    with pytest.raises(UnfitServer, match="http://127.0.0.1:9.*start it with: .*(vllm|sglang)"):
        await engine.open().sample(PROMPT, PARAMS, seed=0)


async def test_a_sleeping_server_is_told_from_a_slow_one(vllm: VllmServer, open_engine: Open) -> None:
    engine = open_engine("vllm", vllm.url)
    session = engine.open()
    await session.sample(PROMPT, PARAMS, seed=0)
    vllm.asleep = True
    with impatient(engine), pytest.raises(ServerFailure, match=rf"{vllm.url}.*asleep.*POST /wake_up"):
        await session.sample([9], PARAMS, seed=0)
    with pytest.raises(PolicyError, match="asleep"):
        engine.check()
    with pytest.raises(UnfitServer, match="asleep"):
        await engine.update_weights(engine.language_model, 1)
    vllm.asleep = False
    with vllm._condition:
        vllm._condition.notify_all()
    assert (await engine.open().sample(PROMPT, PARAMS, seed=0)).ids, "woken, it is used again"
    engine.check()


async def test_a_server_that_sleeps_or_is_paused_at_the_beginning_is_refused(
    vllm: VllmServer, open_engine: Open
) -> None:
    vllm.asleep = True
    with pytest.raises(UnfitServer, match="asleep"):
        await open_engine("vllm", vllm.url).open().sample(PROMPT, PARAMS, seed=0)
    vllm.asleep, vllm.paused = False, True
    with pytest.raises(UnfitServer, match="paused.*POST /resume"):
        await open_engine("vllm", vllm.url).open().sample(PROMPT, PARAMS, seed=0)


async def test_a_slow_server_is_told_what_to_raise(
    dialect: str, server: ModelServer, open_engine: Open, language_model: LanguageModel
) -> None:
    engine = open_engine(dialect, server.url, of=endless(language_model))
    session = engine.open()
    await session.sample(PROMPT, PARAMS, seed=0)
    slowly(server, 0.2)
    with impatient(engine), pytest.raises(ServerFailure, match=r"0.3 s.*engine.timeout"):
        await session.sample([9], SamplingParams(max_tokens=60), seed=0)
    engine.check()


async def test_a_restarted_server_is_noticed_and_the_next_weights_mend_it(
    dialect: str, server: ModelServer, open_engine: Open, language_model: LanguageModel, shake: Callable[..., None]
) -> None:
    engine = open_engine(dialect, server.url)
    await engine.open().sample(PROMPT, PARAMS, seed=0)
    shake(language_model, 7)
    await engine.update_weights(language_model, 1)
    server.label = "default"  # as a server calls what it was started with
    with pytest.raises(ServerFailure, match=rf"{server.url}.*restarted"):
        await engine.open().sample(PROMPT, PARAMS, seed=0)
    with pytest.raises(ServerFailure, match="restarted"):
        engine.check()
    await engine.update_weights(language_model, 2)
    engine.check()
    assert (await engine.open().sample(PROMPT, PARAMS, seed=0)).version == 2


async def test_an_update_that_breaks_off_is_a_failure_and_a_further_one_mends_it(
    vllm: VllmServer, open_engine: Open, language_model: LanguageModel, shake: Callable[..., None]
) -> None:
    """The server answers with an error in the middle of the four phases, and is left paused."""
    engine = open_engine("vllm", vllm.url)
    await engine.open().sample(PROMPT, PARAMS, seed=0)
    words = {"error": {"message": "Worker failed with error 'No such file'", "type": "InternalServerError"}}
    vllm.intercept = lambda path, body: HttpReply(words, 500) if path == "/update_weights" else None
    shake(language_model, 7)
    with pytest.raises(ServerFailure, match=rf"{vllm.url}: /update_weights.*No such file.*engine.folder"):
        await engine.update_weights(language_model, 1)
    assert vllm.paused
    assert engine.version == 0
    vllm.intercept = lambda path, body: None
    await engine.update_weights(language_model, 2)
    sampled = await engine.open().sample(PROMPT, PARAMS, seed=0)
    assert gap(language_model, PROMPT, sampled) < 1e-4


async def test_a_server_that_dies_in_the_middle_of_an_update_ends_it(
    vllm: VllmServer, open_engine: Open, language_model: LanguageModel
) -> None:
    engine = open_engine("vllm", vllm.url)
    await engine.open().sample(PROMPT, PARAMS, seed=0)

    def dies(path: str, body: Any) -> HttpReply | None:
        if path != "/update_weights":
            return None
        asyncio.run_coroutine_threadsafe(asyncio.to_thread(vllm.stop), loop)
        while not vllm._stopped:
            pass
        raise ConnectionError("killed")

    loop = asyncio.get_running_loop()
    vllm.intercept = dies
    with pytest.raises(ServerFailure, match=rf"weights were not handed over.*{vllm.url}.*resumed"):
        await engine.update_weights(language_model, 1)
    with pytest.raises(ServerFailure, match="not handed over"):
        engine.check()


async def test_the_folder_of_weights_is_a_setting_and_is_left_empty(
    dialect: str, tmp_path: Path, server: ModelServer, open_engine: Open, language_model: LanguageModel
) -> None:
    engine = open_engine(dialect, server.url, folder=str(tmp_path))
    for version in (1, 2):
        await engine.update_weights(language_model, version)
    assert [path.name.partition(".")[0] for path in engine._folder.iterdir()] == ["version-2"]
    assert engine._folder.parent == tmp_path
    handed = [body for path, body in server.seen if path in ("/update_weights", "/update_weights_from_disk")]
    assert all(str(tmp_path) in str(body) for body in handed)
    assert len(handed) == 2
    await engine.close()
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240


async def test_the_key_is_read_from_the_variable_that_is_named_and_told_to_nobody(
    vllm: VllmServer, open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVERS_KEY", "sesame-opens-it")
    engine = open_engine("vllm", vllm.url, key_env="SERVERS_KEY")
    await engine.open().sample(PROMPT, PARAMS, seed=0)
    assert vllm.authorizations == {"Bearer sesame-opens-it"}
    vllm.intercept = lambda path, body: HttpReply({"error": "Unauthorized: sesame-opens-it"}, 401)
    with pytest.raises(UnfitServer, match="HTTP 401.*engine.key_env") as caught:
        await engine.open().sample(PROMPT, PARAMS, seed=0)
    assert "sesame" not in str(caught.value)
    monkeypatch.setenv("SERVERS_KEY", "line\nbreak")
    with pytest.raises(UserError, match="SERVERS_KEY"):
        open_engine("vllm", vllm.url, key_env="SERVERS_KEY")


async def test_who_closes_the_engine_ends_what_is_under_way(
    vllm: VllmServer, open_engine: Open, language_model: LanguageModel
) -> None:
    engine = open_engine("vllm", vllm.url, of=endless(language_model))
    await engine.open().sample(PROMPT, PARAMS, seed=0)
    slowly(vllm)
    task = await long_completion(engine)
    await engine.close()
    with pytest.raises(PolicyError, match="closed"):
        await task


async def test_without_a_key_none_is_sent(
    vllm: VllmServer, open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ENVGYM_API_KEY", raising=False)
    await open_engine("vllm", vllm.url).open().sample(PROMPT, PARAMS, seed=0)
    assert vllm.authorizations == {""}
