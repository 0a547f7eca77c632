"""The dialect of vLLM 0.32, as far as training needs it; the answers have the form that a real one gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from envgym_trainers.models.language_model import LanguageModel
from envgym_trainers.testing.servers.model_server import ModelCompletion, ModelServer
from envgym_trainers.testing.servers.serving import HttpReply

__all__ = ["VllmServer"]


class VllmServer(ModelServer):
    """A small vLLM, started with everything that training needs."""

    def __init__(self, language_model: LanguageModel, port: int = 0) -> None:
        super().__init__(language_model, port)
        self.config: dict[str, Any] = {
            "model_config": {"dtype": str(language_model.dtype)},
            "cache_config": {"enable_prefix_caching": True},
            "weight_transfer_config": {"backend": "envgym_disk"},
            "lora_config": {"max_lora_rank": 16},
        }
        """What it says of its configuration."""

    def routes(self) -> Mapping[str, Callable[[Mapping[str, str], Any], Any]]:
        """Return what answers each request."""
        return {
            "GET /version": lambda query, body: {"version": "0.32.0"},
            "GET /server_info": lambda query, body: {"vllm_config": self.config},
            "GET /v1/models": lambda query, body: self._models(),
            "GET /weight_info": lambda query, body: {"weight_version": self.label},
            "GET /is_paused": lambda query, body: {"is_paused": self.paused or self.asleep},
            "GET /is_sleeping": lambda query, body: {"is_sleeping": self.asleep},
            "POST /inference/v1/generate": lambda query, body: self._generate(body),
            "POST /pause": self._pause,
            "POST /resume": self._resume,
            "POST /init_weight_transfer_engine": lambda query, body: {"message": "Weight transfer initialized"},
            "POST /start_weight_update": lambda query, body: {"message": "Weight update started"},
            "POST /update_weights": self._update,
            "POST /finish_weight_update": lambda query, body: self._rename(body["weight_version"]),
            "POST /update_weight_version": lambda query, body: self._rename(body["new_version"]),
            "POST /reset_prefix_cache": lambda query, body: {"success": True},
            "POST /v1/load_lora_adapter": self._load_adapter,
            "POST /v1/unload_lora_adapter": self._unload_adapter,
        }

    def _models(self) -> Any:
        models = [
            {"id": name, "max_model_len": self.context if name == self.name else None} for name in self.names
        ]
        return {"object": "list", "data": models}

    def _generate(self, body: Any) -> HttpReply:
        sampling, name = body["sampling_params"], body.get("model") or self.name
        if name not in self.names:
            message = f"The model `{name}` does not exist."
            return HttpReply({"error": {"message": message, "type": "NotFoundError", "code": 404}}, 404)
        if len(body["token_ids"]) >= self.context:
            message = (
                f"The decoder prompt (length {len(body['token_ids'])}) is longer than the maximum model length"
            )
            return HttpReply({"error": {"message": message, "type": "BadRequestError", "code": 400}}, 400)
        made = self.sample(
            body["token_ids"],
            name=name,
            temperature=sampling["temperature"],
            max_tokens=sampling["max_tokens"],
            seed=sampling["seed"],
            stop_ids=sampling["stop_token_ids"],
        )
        return HttpReply({"model": name, "output_mode": "tokens", "choices": [_choice(made)]})

    def _pause(self, query: Mapping[str, str], body: Any) -> Any:
        self.pause(abort=query.get("mode", "abort") == "abort")
        return {"status": "paused"}

    def _resume(self, query: Mapping[str, str], body: Any) -> Any:
        self.resume()
        return {"status": "resumed"}

    def _update(self, query: Mapping[str, str], body: Any) -> Any:
        self.load_file(body["update_info"]["file"])
        return {"message": "Weights updated"}

    def _rename(self, label: str) -> Any:
        self.label = label
        return {"success": True, "new_version": label}

    def _load_adapter(self, query: Mapping[str, str], body: Any) -> Any:
        self.add_adapter(body["lora_name"], body["lora_path"])
        return f"Success: LoRA adapter '{body['lora_name']}' added successfully."

    def _unload_adapter(self, query: Mapping[str, str], body: Any) -> Any:
        self.remove_adapter(body["lora_name"])
        return f"Success: LoRA adapter '{body['lora_name']}' removed successfully."


def _choice(made: ModelCompletion) -> dict[str, Any]:
    pairs = zip(made.ids, made.logprobs, strict=True)
    return {
        "index": 0,
        "finish_reason": made.end,
        "stop_reason": made.ids[-1] if made.end == "stop" else None,
        "token_ids": made.ids,
        "weight_versions": made.spans(),
        "logprobs": {"content": [{"token_id": i, "logprob": value, "rank": 1} for i, value in pairs]},
    }
