"""Install distributions from outside the project, the way pip would, for one module's tests."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from envgym.env.registration import register_in_gymnasium
from envgym.plugins.spec import installed_plugins

PACKAGE = Path(__file__).parent / "package"
Install = Callable[..., None]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on ``sys.path``, as ``site-packages`` is."""
    folder = tmp_path_factory.mktemp("site")
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]
    installed_plugins.cache_clear()


@pytest.fixture(scope="module")
def install(site: Path) -> Install:
    """``install("name", {"group": {"plugin": "module:Class"}}, {"module.py": "text"}, requires=[...])``."""

    def put(
        name: str,
        entry_points: Mapping[str, Mapping[str, str]],
        modules: Mapping[str, str] | None = None,
        requires: tuple[str, ...] = (),
    ) -> None:
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        sections = [
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
            for group, points in entry_points.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(sections))
        for path, text in (modules or {}).items():
            (site / path).write_text(text)
        importlib.invalidate_caches()
        installed_plugins.cache_clear()

    return put


@pytest.fixture(scope="module")
def stranger(install: Install, site: Path) -> Iterator[None]:
    """The package with one plugin of every kind."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shutil.copytree(PACKAGE / "envgym_stranger", site / "envgym_stranger")
    install(project["name"], project["entry-points"])
    register_in_gymnasium()
    yield
    import gymnasium

    for name in project["entry-points"]["envgym.environments"]:
        del gymnasium.registry[f"envgym/{name}"]


@pytest.fixture(scope="module")
def command(site: Path) -> Command:
    """``command("list", "--check")``: the command line in a process of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from envgym.cli import main; main()", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)])},
            cwd=site,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run
