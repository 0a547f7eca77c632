"""The command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Result
from toys import Adder

from envgym.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """``run("list", "--json")``: the command, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> Result:
        Adder.instances.clear()
        monkeypatch.setattr(sys, "argv", ["envgym", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        streams = capsys.readouterr()
        return Result(int(end.value.code or 0), streams.out, streams.err)

    yield command
    Adder.instances.clear()
