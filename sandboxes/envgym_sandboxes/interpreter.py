"""What of this machine a sandbox needs to run Python: the standard library, some packages, shared libraries.

The Docker image is made of these files and bubblewrap binds them, so both offer programs the same interpreter.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from envgym.errors import UserError

__all__ = ["Interpreter", "this_interpreter"]

_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3"}
_LIBRARY = re.compile(r"(?:=>\s*)?(/\S+)\s+\(0x")
_REQUIREMENT = re.compile(r"^[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """An interpreter as files: where each stands in the sandbox, and where it is read from."""

    python: str
    """Absolute path of the executable inside."""
    files: dict[str, Path]
    """Absolute path inside → file on this machine; links are resolved."""


@functools.cache
def this_interpreter(packages: tuple[str, ...]) -> Interpreter:
    """Collect the running interpreter with ``packages`` and what they require; about a second, then cached.

    Raises:
        UserError: a package is not installed, or this is not a Linux machine with ``ldd``.
    """
    if not sys.platform.startswith("linux") or shutil.which("ldd") is None:
        raise UserError("only a Linux machine with ldd can lend its interpreter; configure image= instead")
    executable = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    if not executable.exists():
        executable = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    files = {str(executable): executable.resolve()}
    files.update({str(path): path for path in _standard_library(library)})
    site = _site_folder(executable)
    for distribution in sorted(_closure(packages)):
        files.update(_package_files(distribution, site))
    shell = shutil.which("sh")
    if shell:
        files["/bin/sh"] = Path(shell).resolve()
    files.update(_shared_libraries(files))
    return Interpreter(python=str(executable), files=dict(sorted(files.items())))


def _standard_library(library: Path) -> Iterator[Path]:
    for path in sorted(library.iterdir()):
        if path.name in _LEFT_OUT or path.name.startswith("config-"):
            continue
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            parts = file.relative_to(library).parts
            if file.is_file() and not _LEFT_OUT & set(parts[:-1]) and not parts[-1].startswith("_tkinter."):
                yield file


def _site_folder(executable: Path) -> Path:
    script = "import site; print(site.getsitepackages()[0])"
    asked = subprocess.run([executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    return Path(asked.stdout.strip())


def _closure(packages: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    wanted = list(packages)
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError as error:
            raise UserError(f"package {name!r} cannot go into the sandbox: it is not installed here") from error
        found.add(name)
        for requirement in requirements:
            match = _REQUIREMENT.match(requirement)
            if match and ";" not in requirement:
                wanted.append(match[0])
    return found


def _package_files(distribution: str, site: Path) -> Iterator[tuple[str, Path]]:
    for file in metadata.files(distribution) or []:
        source = Path(str(file.locate()))
        if not file.parts or file.parts[0] == ".." or "tests" in file.parts or not source.is_file():
            continue
        yield str(site / file), source.resolve()


def _shared_libraries(files: dict[str, Path]) -> dict[str, Path]:
    """Every library that ``ldd`` names for the binaries among ``files``, at the path where it is looked for."""
    binaries = [path for path in files.values() if path.suffix != ".py" and _is_elf(path)]
    named = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    present = set(files.values())
    found = {where: Path(where).resolve() for where in _LIBRARY.findall(named)}
    return {where: source for where, source in found.items() if source not in present}


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
