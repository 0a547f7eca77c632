"""What of this machine a sandbox needs to run Python: the standard library, packages, shared libraries.

The Docker image is made of these files and bubblewrap binds them, so programs find the same in both.
"""

from __future__ import annotations

import functools
import os
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

_LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
}
_TEXTS = {".py", ".pyi", ".txt", ".h", ".pyx", ".pxd"}
_LIBRARY = re.compile(r"(?:=>\s*)?(/\S+)\s+\(0x")
_REQUIREMENT = re.compile(r"^[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """An interpreter as trees of files: where each stands in the sandbox, and where it is read from."""

    python: str
    """Absolute path of the executable inside."""
    site: str
    """The folder of third-party packages inside; what this machine has there stays out."""
    trees: dict[str, Path]
    """Absolute path inside → file or folder on this machine; a later one may lie within an earlier one."""

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield every file that programs need: absolute path inside, file on this machine, links resolved.

        Compiled modules are not among them: which of those exist changes from day to day.
        """
        for inside, source in self.trees.items():
            if source.is_file():
                yield inside, source.resolve()
                continue
            for folder, below, names in os.walk(source):
                below[:] = sorted(name for name in below if name not in _LEFT_OUT and "config-" not in name)
                for name in sorted(names):
                    if not name.startswith("_tkinter."):
                        file = Path(folder, name)
                        yield f"{inside}/{file.relative_to(source)}", file.resolve()


@functools.cache
def this_interpreter(packages: tuple[str, ...]) -> Interpreter:
    """Find the running interpreter with ``packages`` and what they require; about a second, then cached.

    Raises:
        UserError: a package is not installed, or this is not a Linux machine with ``ldd``.
    """
    if not sys.platform.startswith("linux") or shutil.which("ldd") is None:
        raise UserError("only a Linux machine with ldd can lend its interpreter; configure image= instead")
    executable = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    if not executable.exists():
        executable = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    site = _site_folder(executable)
    trees = {str(executable): executable.resolve(), str(library): library}
    for distribution in sorted(_closure(packages)):
        trees.update(_package_trees(distribution, site))
    shell = shutil.which("sh")
    if shell:
        trees["/bin/sh"] = Path(shell).resolve()
    bare = Interpreter(python=str(executable), site=site, trees=trees)
    return Interpreter(python=str(executable), site=site, trees=trees | _shared_libraries(bare))


def _site_folder(executable: Path) -> str:
    script = "import site; print(site.getsitepackages()[0])"
    asked = subprocess.run([executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    return asked.stdout.strip()


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
        plain = [_REQUIREMENT.match(requirement) for requirement in requirements if ";" not in requirement]
        wanted += [match[0] for match in plain if match]
    return found


def _package_trees(distribution: str, site: str) -> dict[str, Path]:
    files = metadata.files(distribution) or []
    tops = {file.parts[0]: file for file in files if file.parts and file.parts[0] not in ("..", "__pycache__")}
    return {
        f"{site}/{name}": Path(str(file.locate())).parents[len(file.parts) - 2]
        if len(file.parts) > 1
        else Path(str(file.locate()))
        for name, file in sorted(tops.items())
    }


def _shared_libraries(interpreter: Interpreter) -> dict[str, Path]:
    """Every library that ``ldd`` names for the interpreter's binaries, at the path where it is looked for."""
    present = {source for _, source in interpreter.files()}
    binaries = [str(source) for source in present if source.suffix not in _TEXTS and _is_elf(source)]
    named = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    found = {where: Path(where).resolve() for where in sorted(_LIBRARY.findall(named))}
    return {where: source for where, source in found.items() if source not in present}


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
