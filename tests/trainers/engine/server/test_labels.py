"""Whose weights a server holds is told by what it calls them."""

from __future__ import annotations

import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from envgym_trainers.engine.server.labels import RELEASED, Labels, is_abandoned, is_published


@given(st.integers(min_value=0, max_value=10**12))
def test_a_label_names_its_version_to_its_engine_alone(version: int) -> None:
    own, other = Labels(), Labels()
    assert own.version(own.of(version)) == version
    assert own.version(other.of(version)) is None
    assert is_published(own.of(version))


@given(st.text())
def test_what_a_server_calls_its_own_weights_is_nobodys(label: str) -> None:
    """Whatever it says, nothing raises."""
    assert Labels().version(label) is None
    assert not is_published(label)
    assert not is_abandoned(label)


def test_a_hostile_number_is_no_version() -> None:
    labels = Labels()
    assert labels.version(labels.of(0) + "9" * 5000) is None


def test_weights_are_abandoned_when_their_process_ended_or_released_them() -> None:
    """Not those of a living process, nor those of another machine, of which nobody here can tell."""
    ended = int(subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"]))
    assert is_abandoned(Labels(process=ended).of(3))
    assert not is_abandoned(Labels(process=os.getpid()).of(3))
    assert not is_abandoned(Labels(host="elsewhere", process=ended).of(3))
    assert is_abandoned(RELEASED)
