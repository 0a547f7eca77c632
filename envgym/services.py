"""What environments need from outside. Nothing is global: an environment asks the ``Services`` it was handed."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from envgym.errors import SandboxError, UnknownNameError
from envgym.registry import sandboxes
from envgym.sandbox import Backend, Limits, Sandbox, select_backend

__all__ = ["Services"]


class Services:
    """Shared by the environments of one run, and closed at its end.

    Args:
        sandbox: a backend's name, or ``"auto"`` for the best isolated one this machine has.
        sandbox_settings: of that backend; see ``select_backend``.

    Raises:
        UnknownNameError: no such backend.
    """

    def __init__(self, sandbox: str = "auto", sandbox_settings: Mapping[str, Any] | None = None) -> None:
        known = ("auto", *sandboxes.plugins())
        if sandbox not in known and ":" not in sandbox:
            raise UnknownNameError("sandbox", sandbox, known)
        self.sandbox_name = sandbox
        self._settings = dict(sandbox_settings or {})
        self._backend: Backend | None = None

    def backend(self) -> Backend:
        """The sandbox backend, made on first use.

        Raises:
            UserError: no such backend, or none that this machine can run.
        """
        if self._backend is None:
            self._backend = select_backend(self.sandbox_name, self._settings)
        return self._backend

    async def open_sandbox(self, limits: Limits) -> Sandbox:
        """Open a sandbox; the caller closes it.

        Raises:
            SandboxError: none could be started.
        """
        try:
            return await self.backend().open(limits)
        except OSError as error:
            raise SandboxError(f"the sandbox backend failed: {error}") from error

    async def close(self) -> None:
        """Free the backend. Safe to call twice."""
        if self._backend is not None:
            backend, self._backend = self._backend, None
            await backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
