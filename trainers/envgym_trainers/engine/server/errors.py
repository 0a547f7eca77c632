"""What can be wrong with a server; every message names the server and the remedy.

```text
UserError
└── UnfitServer        as it was started, it cannot be trained against
    ├── OtherModel     it runs another model, vocabulary or context than the trainer
    ├── OtherWeights   its log-probs are not those of the trainer's weights
    └── OtherTrainer   somebody else publishes weights to it
PolicyError
└── ServerFailure      it is down, too slow, asleep, paused, or did not take over weights
```

An ``UnfitServer`` ends the run at once. A ``ServerFailure`` makes an episode missing data, and ends the run where
it comes out of ``Engine.check`` or ``Engine.update_weights``.
"""

from __future__ import annotations

from envgym.errors import PolicyError, UserError

__all__ = ["OtherModel", "OtherTrainer", "OtherWeights", "ServerFailure", "UnfitServer"]


class UnfitServer(UserError):
    """A server that cannot be trained against as it was started.

    Args:
        server: its address.
        problem: what it lacks.
        remedy: what to do.
    """

    def __init__(self, server: str, problem: str, remedy: str) -> None:
        super().__init__(f"{server}: {problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


class OtherModel(UnfitServer):
    """The server runs another model, vocabulary or context than the trainer."""


class OtherWeights(UnfitServer):
    """The server's log-probs are not those of the trainer's weights: training would be on wrong numbers."""


class OtherTrainer(UnfitServer):
    """The server's weights were published by another trainer."""


class ServerFailure(PolicyError):
    """The server is down, too slow, asleep or paused, or it did not take over weights."""
