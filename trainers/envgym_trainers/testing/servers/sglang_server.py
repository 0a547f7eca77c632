"""The dialect of SGLang 0.5.23, as far as training needs it; the form of the answers is that of its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from envgym_trainers.testing.servers.model_server import ModelServer
from envgym_trainers.testing.servers.serving import HttpReply

__all__ = ["SGLangServer"]


class SGLangServer(ModelServer):
    """A small SGLang."""

    def routes(self) -> Mapping[str, Callable[[Mapping[str, str], Any], Any]]:
        """Return what answers each request."""
        return {
            "GET /ready": lambda query, body: HttpReply(None, 503 if self.paused else 200),
            "GET /server_info": lambda query, body: {"version": "0.5.23", "dtype": "float32", "enable_lora": True},
            "GET /v1/models": lambda query, body: self._models(),
            "GET /model_info": lambda query, body: {"model_path": self.name, "weight_version": self.label},
            "POST /generate": lambda query, body: self._generate(body),
            "POST /pause_generation": self._pause,
            "POST /continue_generation": self._resume,
            "POST /update_weights_from_disk": self._update,
            "POST /update_weight_version": lambda query, body: self._rename(body["new_version"]),
            "POST /load_lora_adapter": self._load_adapter,
            "POST /unload_lora_adapter": self._unload_adapter,
        }

    def _models(self) -> Any:
        models = [
            {"id": name, "max_model_len": self.context if name == self.name else None} for name in self.names
        ]
        return {"object": "list", "data": models}

    def _generate(self, body: Any) -> HttpReply:
        sampling, name = body["sampling_params"], body.get("lora_path") or self.name
        if name not in self.names:
            message = f"Got LoRA adapter that has never been loaded: {name}"
            return HttpReply({"error": {"message": message}}, 400)
        made = self.sample(
            body["input_ids"],
            name=name,
            temperature=sampling["temperature"],
            max_tokens=sampling["max_new_tokens"],
            seed=sampling["sampling_seed"],
            stop_ids=sampling["stop_token_ids"],
        )
        finish: dict[str, Any] = {"type": made.end}
        if made.end == "stop":
            finish["matched"] = made.ids[-1]
        pairs = zip(made.logprobs, made.ids, strict=True)
        meta: dict[str, Any] = {
            "finish_reason": finish,
            "weight_version": made.labels[-1] if made.labels else self.label,
            "completion_tokens": len(made.ids),
            "output_token_logprobs": [[value, i, None] for value, i in pairs],
        }
        if made.ids:
            meta["weight_versions"] = made.spans()
        return HttpReply({"text": "", "output_ids": made.ids, "meta_info": meta})

    def _pause(self, query: Mapping[str, str], body: Any) -> Any:
        self.pause(abort=body.get("mode", "abort") == "abort")
        return {"message": "Generation paused successfully.", "status": "ok"}

    def _resume(self, query: Mapping[str, str], body: Any) -> Any:
        self.resume()
        return {"message": "Generation continued successfully.", "status": "ok"}

    def _update(self, query: Mapping[str, str], body: Any) -> Any:
        self.load_file(Path(body["model_path"]) / "model.safetensors")
        self.label = body["weight_version"]
        return {"success": True, "message": "Succeeded to update model weights.", "num_paused_requests": 0}

    def _rename(self, label: str) -> Any:
        self.label = label
        return {"success": True, "message": f"Weight version updated to {label}", "new_version": label}

    def _load_adapter(self, query: Mapping[str, str], body: Any) -> Any:
        self.add_adapter(body["lora_name"], body["lora_path"])
        return {"success": True, "error_message": None, "loaded_adapters": {}}

    def _unload_adapter(self, query: Mapping[str, str], body: Any) -> Any:
        self.remove_adapter(body["lora_name"])
        return {"success": True, "error_message": None, "loaded_adapters": {}}
