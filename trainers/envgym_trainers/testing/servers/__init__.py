"""Small servers of real models in this process, in the dialects of large ones: for tests of engines and runs."""

from envgym_trainers.testing.servers.model_server import ModelServer
from envgym_trainers.testing.servers.sglang_server import SGLangServer
from envgym_trainers.testing.servers.vllm_server import VllmServer

__all__ = ["ModelServer", "SGLangServer", "VllmServer"]
