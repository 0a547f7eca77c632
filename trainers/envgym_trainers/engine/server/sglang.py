"""SGLang: its native endpoint, weights from a folder in one request."""

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
from envgym_trainers.engine.server.wire import Wire, parsed
from envgym_trainers.models.language_model import LanguageModel

__all__ = ["SGLang", "SGLangEngine"]


class _Finish(Wire):
    type: FinishReason


class _Span(Wire):
    version: str
    start: pydantic.NonNegativeInt
    end: pydantic.NonNegativeInt


class _Meta(Wire):
    finish_reason: _Finish
    weight_version: str | None = None
    weight_versions: tuple[_Span, ...] | None = None
    output_token_logprobs: tuple[tuple[float, pydantic.NonNegativeInt, str | None], ...] | None = None


class _Generated(Wire):
    meta_info: _Meta


class _Model(Wire):
    id: str
    max_model_len: int | None = None


class _Models(Wire):
    data: tuple[_Model, ...] = pydantic.Field(min_length=1)


class _Info(Wire):
    weight_version: str


class _ServerInfo(Wire):
    version: str
    dtype: str = "not told"
    enable_lora: bool | None = None
    disable_radix_cache: bool = False


class SGLang(Dialect):
    """The dialect of SGLang."""

    name = "sglang"
    url = "http://127.0.0.1:30000"
    generate = "/generate"
    start = "python -m sglang.launch_server --model-path MODEL"
    resume = "end the pause: POST /continue_generation"

    def body(self, ask: TokenRequest) -> dict[str, Any]:
        """Return the body of a request for tokens."""
        sampling = {
            "temperature": ask.params.temperature,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "max_new_tokens": ask.params.max_tokens,
            "sampling_seed": ask.seed,  # minded with --enable-deterministic-inference alone
            "ignore_eos": True,  # the ends of a turn are ours
            "stop_token_ids": list(ask.stop_ids),
        }
        body = {"input_ids": list(ask.ids), "sampling_params": sampling, "return_logprob": True}
        return {**body, "lora_path": ask.adapter} if ask.adapter else body

    def read(self, server: Server, answer: Answer) -> TokenReply:
        """Return what was sampled."""
        answer.check()
        found = parsed(_Generated, answer.json())
        meta = found.meta_info
        if meta.output_token_logprobs is None:
            raise server.unfit("its completions come without log-probs and token ids")
        if meta.weight_version is None:
            raise server.unfit("its completions do not say which weights sampled them", "upgrade it")
        ids = [token for _, token, _ in meta.output_token_logprobs]
        spans = tuple(LabelSpan(span.version, span.end - span.start) for span in meta.weight_versions or ())
        return TokenReply(
            ids=ids,
            logprobs=[logprob for logprob, _, _ in meta.output_token_logprobs],
            end=meta.finish_reason.type,
            spans=spans or (LabelSpan(meta.weight_version, len(ids)),),
        )

    async def status(self, server: Server) -> ServerStatus:
        """Ask the server what it is. It tells of no sleep: memory that was released is not seen."""
        models = (await server.get("/v1/models", _Models)).data
        label = (await server.get("/model_info", _Info)).weight_version
        return ServerStatus(
            models=[model.id for model in models],
            context=models[0].max_model_len,
            label=label,
            paused=await server.status_of("/ready") == 503,
        )

    async def version(self, server: Server) -> str:
        """Return the version of SGLang."""
        try:
            return (await server.get("/server_info", _ServerInfo)).version
        except (ServerFailure, UnfitServer):
            return ""

    async def ways(self, server: Server) -> Ways:
        """Read the configuration; routes that exist refuse the wrong method."""
        info = await server.get("/server_info", _ServerInfo)
        missing = await server.status_of("/update_weights_from_disk") != 405
        cache = "off" if info.disable_radix_cache else "on, flushed with new weights"
        return Ways(
            disk="it has no route /update_weights_from_disk: upgrade it" if missing else "",
            lora="" if info.enable_lora else "--enable-lora --max-lora-rank RANK --lora-target-modules all",
            notes={"precision": info.dtype, "prefix cache": cache},
        )

    async def rename(self, server: Server, label: str) -> None:
        """Let the server call its weights ``label``."""
        await server.post("/update_weight_version", {"new_version": label, "abort_all_requests": False})

    def write(self, language_model: LanguageModel, place: Path) -> Path:
        """Write a folder in the layout of Hugging Face."""
        language_model.save(place)
        return place

    async def load(self, server: Server, weights: Path, label: str) -> None:
        """Replace the weights; what is under way goes back to the queue, and is run again from its ids."""
        async with _paused(server, "retract"):
            await server.post(
                "/update_weights_from_disk",
                {"model_path": str(weights), "weight_version": label, "flush_cache": True},
            )

    async def load_adapter(self, server: Server, folder: Path, label: str) -> None:
        """Load the adapter under a name of its own."""
        async with _paused(server, "abort"):
            await server.post("/load_lora_adapter", {"lora_name": label, "lora_path": str(folder)})
            await self.rename(server, label)

    async def unload_adapter(self, server: Server, name: str) -> None:
        """Have the server forget an adapter."""
        await server.post("/unload_lora_adapter", {"lora_name": name})


@contextlib.asynccontextmanager
async def _paused(server: Server, mode: str) -> AsyncIterator[None]:
    """Pause sampling. It stays paused if the update fails: nothing may be sampled from half of the weights."""
    await server.post("/pause_generation", {"mode": mode})
    yield
    await server.post("/continue_generation", {})


class SGLangEngine(ServerEngine):
    """Samples from SGLang servers, token ids in and out, and publishes the trainer's weights to them."""

    dialect = SGLang()
