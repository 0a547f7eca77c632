"""Python as a tool: an episode's session in a sandbox, which its first call opens."""

from __future__ import annotations

from envgym.env.episode_services import EpisodeServices
from envgym.env.tools import ToolInputError
from envgym.sandbox.interface import Limits, Sandbox, Status

__all__ = ["PythonSession"]


class PythonSession:
    """A Python session that runs a model's code; names survive from call to call until it is closed.

    Make one in ``__init__``, have a ``@tool(concurrent=False)`` method await ``run``, and ``finish`` await
    ``close``.

    Args:
        services: the environment's own, ``self.services``; they open the sandbox.
        limits: the sandbox's limits; ``wall_seconds`` is the deadline of each call.
        error_chars: maximum length of an error message, in characters.
    """

    def __init__(self, services: EpisodeServices, limits: Limits, *, error_chars: int) -> None:
        self._services = services
        self._limits = limits
        self._error_chars = error_chars
        self._sandbox: Sandbox | None = None

    async def run(self, code: str) -> str:
        """Run ``code`` and return what it prints, stripped, or a remark that it printed nothing.

        Raises:
            ToolInputError: the program failed; the message gives the status and the last line of its error output.
            SandboxError: the sandbox itself failed, not the program.
        """
        if self._sandbox is None:
            self._sandbox = await self._services.open_sandbox(self._limits)
        done = await self._sandbox.run_cell(code)
        if done.status is not Status.OK:
            last_line = done.error_text.strip().rpartition("\n")[2]
            raise ToolInputError(f"{done.status}: {last_line}"[: self._error_chars])
        return done.text.strip() or "nothing was printed"

    async def close(self) -> None:
        """Close the sandbox, if there is one; the next call opens another. Safe to call twice."""
        if self._sandbox is not None:
            sandbox, self._sandbox = self._sandbox, None
            await sandbox.close()
