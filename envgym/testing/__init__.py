"""Contract tests for plugins, and helpers for an author's own tests. Needs pytest 9.2.

Inherit the suite of a kind and name the plugin; pytest collects the rest::

    from envgym.testing import EnvironmentContract


    class TestReversal(EnvironmentContract):
        env = "reversal:Reversal"

Objectives and engines are tested in the same way by ``envgym_trainers.testing``, and tool formats by
``envgym.testing.tool_formats``, which needs hypothesis as well.
"""

from __future__ import annotations

from envgym.policies.scripted import Script
from envgym.testing.clusters import ClusterContract, InProcessCluster
from envgym.testing.environments import EnvironmentContract
from envgym.testing.play import play
from envgym.testing.policies import PolicyContract
from envgym.testing.sandboxes import IsolatedSandboxContract, SandboxContract

__all__ = [
    "ClusterContract",
    "EnvironmentContract",
    "InProcessCluster",
    "IsolatedSandboxContract",
    "PolicyContract",
    "SandboxContract",
    "Script",
    "play",
]
