"""Start Ray on this machine, or connect to a running cluster, without its dashboard, telemetry and chatter."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping

from envgym.errors import UserError
from envgym.optional_packages import require

__all__ = ["RaySession"]

_OBJECT_STORE_BYTES = 80 * 2**20
"""Least that Ray takes; payloads are short texts and do not go through it."""
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_ALONE = {
    # Listen on loopback only: a switch that Ray has for other systems.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Ray would write a token of its own into the home folder.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
"""Settings of a Ray that serves this process alone."""


class RaySession:
    """The connection of this process to Ray; there is one at a time."""

    def __init__(self) -> None:
        self._opened = False
        self._folder = ""
        self.paths: list[str] = []
        """Folders that a worker looks for modules in, as this process does; empty on other machines."""

    async def open(self, address: str, cores: float) -> None:
        """Connect to ``address``, or start Ray here if it is empty.

        Args:
            address: ``HOST:PORT``, ``auto`` or ``""``.
            cores: processor cores that a Ray which is started here has to give away, however many there are.

        Raises:
            UserError: Ray is not installed, in use already, or nothing answers at the address.
        """
        # Ray reads them when it is imported, and what it starts inherits them.
        for name, value in (_QUIET if address else _QUIET | _ALONE).items():
            os.environ.setdefault(name, value)
        ray = require("ray", "cluster = 'ray'")
        if ray.is_initialized():
            raise UserError("cluster: this process is connected to a Ray already, and can use one at a time")
        if not address:
            # Not in TMPDIR: the paths of Ray's sockets must be short.
            self._folder = tempfile.mkdtemp(prefix=f"envgym-ray-{os.getpid()}-", dir="/tmp")
            self.paths = [path for path in sys.path if path]
        # What Ray starts inherits the mask: Ctrl-C goes to every process of the terminal, and a run ends its step.
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            if address:
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
            else:
                ray.init(
                    num_cpus=max(1, math.ceil(cores)),
                    num_gpus=0,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    _temp_dir=self._folder,
                )
        except (OSError, RuntimeError, ValueError) as error:
            await self.close()
            raise UserError(
                f"cluster: Ray cannot be reached at {address or 'this machine'}: {error}; start it with "
                "`ray start --head`, or leave cluster.address out"
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        self._opened = True

    def have(self, resource: str) -> float:
        """Return how much Ray has of ``CPU`` or ``GPU``, over all machines."""
        import ray

        have: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return have.get(resource, 0.0)

    async def close(self) -> None:
        """Disconnect, and end the Ray that was started here. Safe to call twice."""
        if self._opened:
            import ray

            self._opened = False
            await asyncio.to_thread(ray.shutdown)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""
