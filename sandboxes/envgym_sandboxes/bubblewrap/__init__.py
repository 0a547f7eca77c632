"""Sandboxes in Linux namespaces, made by bubblewrap; needs no daemon and no image."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from typing import Any

import pydantic

from envgym.sandbox.interface import Backend, Limits
from envgym_sandboxes.bubblewrap.cgroup import missing_controllers, sweep
from envgym_sandboxes.bubblewrap.flags import isolation
from envgym_sandboxes.bubblewrap.launch import Namespace, launch
from envgym_sandboxes.interpreter import this_interpreter
from envgym_sandboxes.pool import SandboxPool, default_capacity
from envgym_sandboxes.session import RunnerSandbox, open_session

__all__ = ["BubblewrapBackend"]


class BubblewrapBackend(Backend):
    """Runs programs in process, network, mount and IPC namespaces of their own; each sandbox is used once.

    Where no control groups can be made, ``degraded`` must name ``memory_bytes``, ``swap``, ``processes`` and
    ``cpus``; rlimits then bound memory per process and processes per user, so that many processes together can
    exhaust the machine.
    """

    class Config(Backend.Config):
        """Settings of the namespaces."""

        packages: tuple[str, ...] = pydantic.Field(
            default=("numpy",),
            description="distributions that programs may import, with what they require",
        )
        capacity: int = pydantic.Field(
            default_factory=default_capacity, ge=1, description="sandboxes alive at once; two a core, at most 16"
        )
        degraded: tuple[str, ...] = pydantic.Field(default=(), description="names of limits to go without")

    config: Config
    rank = 10

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._swept = threading.Event()
        self._pool = SandboxPool(self._launch, self.config.capacity)

    @classmethod
    def unavailable(cls) -> str | None:
        """Return the reason why bubblewrap does not work here, or ``None``."""
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            return "bwrap is not installed; install bubblewrap 0.8 or newer"
        command = [bwrap, *isolation(as_root=os.geteuid() == 0)]
        command += ["--ro-bind", "/", "/", "--", "/bin/sh", "-c", ":"]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
        if tried.returncode:
            return f"bwrap cannot make namespaces ({tried.stderr.strip()}); allow user namespaces for this user"
        missing = missing_controllers()
        if missing:
            return (
                f"control groups for {', '.join(missing)} cannot be made, so limits would not hold; run as "
                "root or under 'systemd-run --user --scope -p Delegate=yes', or name the limits to go "
                "without as degraded"
            )
        return None

    @classmethod
    def clean(cls) -> int:
        """Remove the control groups of dead owners; their processes died with them."""
        return sweep()

    async def open(self, limits: Limits) -> RunnerSandbox:
        """Start a sandbox; see ``Backend.open``."""
        return await open_session(self._pool, limits, reusable=False)

    async def close(self) -> None:
        """End every sandbox of this backend; see ``Backend.close``."""
        await self._pool.close()

    def _launch(self, limits: Limits) -> Namespace:
        if not self._swept.is_set():
            sweep()
            self._swept.set()
        return launch(limits, this_interpreter(self.config.packages), degraded=frozenset(self.config.degraded))
