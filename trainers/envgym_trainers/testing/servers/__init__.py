"""Small servers of real models in this process, in the dialects of large ones: for tests of engines and runs."""

from collections.abc import Mapping

from envgym_trainers.testing.servers.model_server import ModelServer
from envgym_trainers.testing.servers.sglang_server import SGLangServer
from envgym_trainers.testing.servers.vllm_server import VllmServer

__all__ = ["MODEL_SERVERS", "ModelServer", "SGLangServer", "VllmServer"]

MODEL_SERVERS: Mapping[str, type[ModelServer]] = {"vllm": VllmServer, "sglang": SGLangServer}
"""The servers by the name of the engine that speaks to them."""
