"""vLLM, from 0.30 on: its token endpoint, and its weight updates in four phases."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pydantic

from envgym.web.service import Answer
from envgym_trainers.engine.server.connection import Server
from envgym_trainers.engine.server.dialect import (
    Dialect,
    FinishReason,
    LabelSpan,
    ServerStatus,
    TokenReply,
    TokenRequest,
    Ways,
)
from envgym_trainers.engine.server.engine import ServerEngine
from envgym_trainers.engine.server.errors import ServerFailure, UnfitServer
from envgym_trainers.engine.server.vllm_plugin import BACKEND
from envgym_trainers.engine.server.weights import write_weights
from envgym_trainers.engine.server.wire import Wire, parsed
from envgym_trainers.models.language_model import LanguageModel

__all__ = ["Vllm", "VllmEngine"]


class _TokenLogprob(Wire):
    token_id: pydantic.NonNegativeInt
    logprob: float


class _Logprobs(Wire):
    content: tuple[_TokenLogprob, ...]


class _Span(Wire):
    version: str
    start: pydantic.NonNegativeInt
    end: pydantic.NonNegativeInt


class _Choice(Wire):
    finish_reason: FinishReason
    token_ids: tuple[pydantic.NonNegativeInt, ...] | None = None
    logprobs: _Logprobs | None = None
    weight_versions: tuple[_Span, ...] | None = None


class _Generated(Wire):
    choices: tuple[_Choice, ...] = pydantic.Field(min_length=1)


class _Model(Wire):
    id: str
    max_model_len: int | None = None


class _Models(Wire):
    data: tuple[_Model, ...] = pydantic.Field(min_length=1)


class _State(Wire):
    weight_version: str = ""
    is_paused: bool = False
    is_sleeping: bool = False


class _Version(Wire):
    version: str


class _Transfer(Wire):
    backend: str


class _Lora(Wire):
    max_lora_rank: int


class _Cache(Wire):
    enable_prefix_caching: bool


class _ModelConfig(Wire):
    dtype: str


class _Config(Wire):
    model_config_: _ModelConfig = pydantic.Field(alias="model_config")
    cache_config: _Cache
    weight_transfer_config: _Transfer | None = None
    lora_config: _Lora | None = None


class _Info(Wire):
    vllm_config: _Config


_TRANSFER = f"""--weight-transfer-config '{{"backend": "{BACKEND}"}}', with envgym installed beside vLLM"""


class Vllm(Dialect):
    """The dialect of vLLM."""

    name = "vllm"
    url = "http://127.0.0.1:8000"
    generate = "/inference/v1/generate"
    start = (
        "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out --logprobs-mode processed_logprobs "
        + _TRANSFER
    )
    resume = "end the pause: POST /resume"

    def body(self, ask: TokenRequest) -> dict[str, Any]:
        """Return the body of a request for tokens."""
        sampling = {
            "temperature": ask.params.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "max_tokens": ask.params.max_tokens,
            "seed": ask.seed,
            "ignore_eos": True,  # the ends of a turn are ours
            "stop_token_ids": list(ask.stop_ids),
            "logprobs": 0,
            "detokenize": False,
        }
        body = {"token_ids": list(ask.ids), "sampling_params": sampling, "cache_salt": ask.label}
        return {**body, "model": ask.adapter or ask.model}

    def read(self, server: Server, answer: Answer) -> TokenReply:
        """Return what was sampled."""
        answer.check()
        choice = parsed(_Generated, answer.json()).choices[0]
        if choice.token_ids is None or choice.logprobs is None:
            lacking = "token ids" if choice.token_ids is None else "log-probs"
            raise server.unfit(f"its completions come without {lacking}")
        if choice.weight_versions is None:
            raise server.unfit("its completions do not say which weights sampled them", "upgrade it to vLLM 0.30")
        return TokenReply(
            ids=list(choice.token_ids),
            logprobs=[one.logprob for one in choice.logprobs.content],
            end=choice.finish_reason,
            spans=tuple(LabelSpan(span.version, span.end - span.start) for span in choice.weight_versions),
        )

    async def status(self, server: Server) -> ServerStatus:
        """Ask the server what it is and does."""
        models = (await server.get("/v1/models", _Models)).data
        label = (await server.get("/weight_info", _State)).weight_version
        paused = (await server.get("/is_paused", _State)).is_paused
        asleep = (await server.get("/is_sleeping", _State)).is_sleeping
        return ServerStatus(
            models=[model.id for model in models],
            context=models[0].max_model_len,
            label=label,
            paused=paused and not asleep,  # who sleeps is paused as well
            asleep=asleep,
        )

    async def version(self, server: Server) -> str:
        """Return the version of vLLM."""
        try:
            return (await server.get("/version", _Version)).version
        except (ServerFailure, UnfitServer):
            return ""

    async def ways(self, server: Server) -> Ways:
        """Read the configuration; routes that exist refuse the wrong method."""
        if await server.status_of("/update_weights") != 405:
            shut = "its development routes are shut: VLLM_SERVER_DEV_MODE=1"
            return Ways(disk=shut, lora=shut, notes={})
        config = (await server.get("/server_info?config_format=json", _Info)).vllm_config
        backend = config.weight_transfer_config.backend if config.weight_transfer_config else ""
        disk, lora = "", ""
        if backend != BACKEND:
            disk = f"its weight transfer is {backend or 'none'!r}: " + _TRANSFER
        if await server.status_of("/v1/load_lora_adapter") != 405 or config.lora_config is None:
            lora = "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora --max-lora-rank RANK"
        cache = "on, apart for each version of the weights" if config.cache_config.enable_prefix_caching else "off"
        dtype = config.model_config_.dtype.removeprefix("torch.")
        return Ways(disk=disk, lora=lora, notes={"precision": dtype, "prefix cache": cache})

    async def rename(self, server: Server, label: str) -> None:
        """Let the server call its weights ``label``."""
        await server.post("/update_weight_version", {"new_version": label})

    def write(self, language_model: LanguageModel, place: Path) -> Path:
        """Write one file of tensors."""
        return write_weights(language_model, place.with_suffix(".safetensors"))

    async def load(self, server: Server, weights: Path, label: str) -> None:
        """Replace the weights in four phases; what is under way is kept, and its prompts are run again."""
        await server.post("/init_weight_transfer_engine", {"init_info": {}})
        async with _paused(server, "keep"):
            await server.post("/start_weight_update")
            await server.post("/update_weights", {"update_info": {"file": str(weights)}})
            await server.post("/finish_weight_update", {"weight_version": label})
            # The salt keeps new requests from the old cache; those under way hold on to it.
            await server.post("/reset_prefix_cache?reset_running_requests=true")

    async def load_adapter(self, server: Server, folder: Path, label: str) -> None:
        """Load the adapter under a name of its own.

        One that is loaded in place of another is read from the disk again at every step of the scheduler, and
        requests under way go on with the old one.
        """
        async with _paused(server, "abort"):
            await server.post("/v1/load_lora_adapter", {"lora_name": label, "lora_path": str(folder)})
            await self.rename(server, label)

    async def unload_adapter(self, server: Server, name: str) -> None:
        """Have the server forget an adapter."""
        await server.post("/v1/unload_lora_adapter", {"lora_name": name})


@contextlib.asynccontextmanager
async def _paused(server: Server, mode: str) -> AsyncIterator[None]:
    """Pause sampling. It stays paused if the update fails: nothing may be sampled from half of the weights."""
    await server.post(f"/pause?mode={mode}")
    yield
    await server.post("/resume")


class VllmEngine(ServerEngine):
    """Samples from vLLM servers, token ids in and out, and publishes the trainer's weights to them."""

    dialect = Vllm()
