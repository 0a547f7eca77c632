"""The policies that need no server keep the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from envgym.testing import PolicyContract


class TestRandomPolicy(PolicyContract):
    policy = "random"


class TestEmptyPolicy(PolicyContract):
    policy = "empty"


class TestModelPolicy(PolicyContract):
    policy = "model"
    settings: ClassVar[Mapping[str, Any]] = {"path": "builtin:tiny", "max_tokens": 8}
