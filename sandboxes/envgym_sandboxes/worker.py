"""Workers: running runners, independent of the backend that launched them."""

from __future__ import annotations

import abc
from dataclasses import dataclass

from envgym_sandboxes.channel import Channel

__all__ = ["End", "Worker"]


@dataclass(frozen=True, slots=True)
class End:
    """Reason why a runner stopped answering."""

    by_program: bool
    """True when the program caused it; otherwise it is a failure of the infrastructure."""
    words: str
    """Details for people."""


class Worker(abc.ABC):
    """A started container or namespace with a runner in it. Methods block; call them in a thread."""

    channel: Channel

    def look(self) -> None:  # most channels are a socket's, which fails by itself
        """Find out that whatever carries the channel still does.

        Raises:
            SandboxError: it does not, and there will be no answer.
        """

    @abc.abstractmethod
    def end(self, since: float) -> End:
        """Return the reason why it does not answer any more.

        Args:
            since: time of the unanswered request, in seconds since the epoch.
        """

    @abc.abstractmethod
    def kill(self) -> None:
        """Destroy the worker with everything in it. Safe to call twice, and if the worker is gone already."""
