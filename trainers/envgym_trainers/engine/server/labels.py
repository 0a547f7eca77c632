"""Labels of weights: what a server calls the weights it was given, and so whose they are and which version."""

from __future__ import annotations

import os
import re
import secrets
import socket
from dataclasses import dataclass, field

__all__ = ["RELEASED", "Labels", "is_abandoned", "is_published"]

RELEASED = "envgym:released"
"""What weights are called whose trainer closed its engine: whoever comes next may publish."""
_LABEL = re.compile(
    r"envgym:(?P<host>[^:]{0,255}):(?P<process>\d{1,9}):(?P<nonce>[0-9a-f]{8}):(?P<version>\d{1,15})"
)


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one engine; no other has the same."""

    host: str = field(default_factory=lambda: socket.gethostname().replace(":", "-"))
    process: int = field(default_factory=os.getpid)
    nonce: str = field(default_factory=lambda: secrets.token_hex(4))

    def of(self, version: int) -> str:
        """Return the label of a version."""
        return f"envgym:{self.host}:{self.process}:{self.nonce}:{version}"

    def version(self, label: str) -> int | None:
        """Return the version that ``label`` names, or ``None`` if it is not one of this engine's."""
        found = _LABEL.fullmatch(label)
        return int(found["version"]) if found and label == self.of(int(found["version"])) else None


def is_published(label: str) -> bool:
    """Return whether a trainer published the weights, rather than the server being started with them."""
    return label == RELEASED or _LABEL.fullmatch(label) is not None


def is_abandoned(label: str) -> bool:
    """Return whether nobody publishes under ``label`` any more, as far as this machine can tell.

    A process of this machine that ended published it, or an engine that was closed.
    """
    found = _LABEL.fullmatch(label)
    if found is None or found["host"] != Labels().host:
        return label == RELEASED
    try:
        os.kill(int(found["process"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
