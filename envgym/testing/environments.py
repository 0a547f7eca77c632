"""The contract of environments, as tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from envgym.check import CHECKS, Check, Subject
from envgym.env.chat_env import ChatEnv
from envgym.env.registration import environments
from envgym.env.run_sync import run_sync
from envgym.env.services import Services

__all__ = ["EnvironmentContract"]


class EnvironmentContract:
    """Run each check of ``envgym check`` as one test.

    A subclass sets:
        env: id of the environment, or ``"package.module:Class"``.
        settings: fields of its ``Config``.
        sandbox: backend for environments that run programs.
        episodes: number of tasks of each split that are played.
    """

    env: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    sandbox: ClassVar[str] = "auto"
    episodes: ClassVar[int] = 3

    @pytest.fixture(scope="class")
    @classmethod
    def env_name(cls) -> str:
        """Name the environment under test; override the fixture to run the suite over several."""
        return cls.env

    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, env_name: str) -> Iterator[Subject]:
        """Open one instance of the environment, which the tests of the class share."""
        services = Services(cls.sandbox)

        def make() -> ChatEnv:
            return environments.make(env_name, cls.settings, services=services)

        with contextlib.closing(make()) as env:
            yield Subject(make=make, env=env, episodes=cls.episodes)
        run_sync(services.close())

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
    def test_the_quality_gate_is_passed(self, subject: Subject, check: Check) -> None:
        """Pass one check; ``Check.mend`` advises on mending a fault."""
        assert check.faults(subject) == [], check.mend
