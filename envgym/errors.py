"""Every error envgym raises, drawn as one tree.

```text
EnvgymError
├── UserError                the caller asked for something impossible; the message says what is allowed
│   ├── UnknownNameError     no plugin, split, tool or setting has that name
│   ├── PluginError          a plugin that cannot be imported, does not fit its kind, or is offered twice
│   ├── RecipeError          a recipe that does not validate
│   └── DataError            a file that is missing or a row that is malformed
└── EpisodeError             an episode could not be finished: missing data, never a reward
    ├── PolicyError          the policy could not produce a completion
    ├── ToolError            a tool failed through no fault of its caller
    ├── SandboxError         the sandbox is unreachable, refused to start, or died on its own
    ├── EnvironmentFailure   the environment's own code raised
    ├── EventLoopBlocked     code of an author kept every episode of the process waiting
    ├── EpisodeTimeout       the episode ran past its deadline, which the policy did not choose
    ├── NestedEpisodeError   an episode that it plays for another role failed
    ├── WorkerLost           the process or the machine that played the episode is gone
    └── VerifierError        the verifier could not decide
```

A ``UserError`` ends a command with its message and exit code 2, without a traceback. An ``EpisodeError`` is
caught in one place, ``envgym.rollout.episode``, and becomes ``Outcome.failed``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from envgym.redaction import quoted

__all__ = [
    "DataError",
    "EnvgymError",
    "EnvironmentFailure",
    "EpisodeError",
    "EpisodeTimeout",
    "EventLoopBlocked",
    "NestedEpisodeError",
    "PluginError",
    "PolicyError",
    "RecipeError",
    "SandboxError",
    "ToolError",
    "UnknownNameError",
    "UserError",
    "VerifierError",
    "WorkerLost",
]


class EnvgymError(Exception):
    """Base of every error that envgym raises deliberately."""


class UserError(EnvgymError):
    """The request cannot be carried out as written; the message says what to change."""


class UnknownNameError(UserError):
    """A name that is not known.

    Args:
        kind: the kind of thing looked up, e.g. ``"environment"``.
        name: the name as given.
        known: every allowed name; the nearest are suggested.
        hint: advice for a name that should have existed, e.g. a package to install.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        allowed = sorted(known)
        near = difflib.get_close_matches(name, allowed, n=3, cutoff=0.5)
        suggestion = f"did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
        listed = ", ".join(allowed) if allowed else "nothing is installed"
        super().__init__(
            f"unknown {kind} {quoted(name, 200)}; {suggestion}allowed: {listed}" + (f"; {hint}" if hint else "")
        )


class PluginError(UserError):
    """A plugin that cannot be imported, does not fit its kind, or shares its name with another."""


class RecipeError(UserError):
    """A recipe, or an override of one, that does not validate."""


class DataError(UserError):
    """A data file that is missing, or a row in one that is malformed."""


class EpisodeError(EnvgymError):
    """An episode that could not be finished. It is missing data: out of the reward and out of the baseline."""


class PolicyError(EpisodeError):
    """The policy could not produce a completion."""


class ToolError(EpisodeError):
    """A tool failed through no fault of its caller."""


class SandboxError(EpisodeError):
    """The sandbox is unreachable, refused to start, or died on its own."""


class EnvironmentFailure(EpisodeError):
    """The environment's own code raised."""


class EventLoopBlocked(EpisodeError):
    """Code of an environment or a policy blocked the event loop for so long that it was interrupted."""


class EpisodeTimeout(EpisodeError):
    """The episode was not over at its deadline. How long a turn takes is the machine's doing, not the policy's."""


class NestedEpisodeError(EpisodeError):
    """An episode that this one plays for another role failed."""


class WorkerLost(EpisodeError):
    """The process or the machine that played the episode is gone, or does not answer."""


class VerifierError(EpisodeError):
    """The verifier could not decide."""
