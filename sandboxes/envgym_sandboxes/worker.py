"""One running runner, whatever launched it."""

from __future__ import annotations

import abc

from envgym_sandboxes.channel import Channel

__all__ = ["Worker"]


class Worker(abc.ABC):
    """A started container or namespace with a runner in it. Methods block; call them in a thread."""

    channel: Channel

    @abc.abstractmethod
    def last_words(self) -> str:
        """What is known about the runner's end, for an error message; empty if nothing is."""

    @abc.abstractmethod
    def kill(self) -> None:
        """Destroy it with everything in it. Safe to call twice, and when it is gone already."""
