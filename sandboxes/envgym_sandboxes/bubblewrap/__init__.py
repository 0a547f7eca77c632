"""Sandboxes in Linux namespaces, made by bubblewrap; needs no daemon and no image."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading

from envgym.sandbox import Backend, Limits
from envgym_sandboxes.bubblewrap.cgroup import missing_controllers, sweep
from envgym_sandboxes.bubblewrap.flags import isolation
from envgym_sandboxes.bubblewrap.launch import Namespace, launch
from envgym_sandboxes.interpreter import this_interpreter
from envgym_sandboxes.pool import Pool, default_capacity
from envgym_sandboxes.session import RunnerSandbox, open_session

__all__ = ["BubblewrapBackend"]


class BubblewrapBackend(Backend):
    """Runs programs in process, network, mount and IPC namespaces of their own; each is used once.

    Args:
        packages: installed distributions that programs may import, with what they require.
        capacity: sandboxes alive at once; two a core, at most 16, by default.
        degraded: names of limits to go without. Where no control groups can be made, ``memory_bytes``,
            ``swap``, ``processes`` and ``cpus`` must all stand here; memory and processes are
            then limited by rlimits, so that many processes together can exhaust the machine.
    """

    def __init__(
        self,
        *,
        packages: tuple[str, ...] = ("numpy",),
        capacity: int | None = None,
        degraded: tuple[str, ...] = (),
    ) -> None:
        self._packages = tuple(packages)
        self._degraded = frozenset(degraded)
        self._swept = threading.Event()
        self._pool = Pool(self._launch, capacity or default_capacity())

    @classmethod
    def unavailable(cls) -> str | None:
        """Why bubblewrap does not work here, or ``None``."""
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
        return launch(limits, this_interpreter(self._packages), degraded=self._degraded)
