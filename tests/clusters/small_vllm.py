"""A program that serves the built-in model in vLLM's dialect: ``small_vllm.py PORT``."""

from __future__ import annotations

import sys
import threading

from envgym_trainers.models.load import ModelConfig, load_model
from envgym_trainers.testing.servers import VllmServer

if __name__ == "__main__":
    with VllmServer(load_model(ModelConfig(path="builtin:tiny", context=320)), int(sys.argv[1])):
        threading.Event().wait()
