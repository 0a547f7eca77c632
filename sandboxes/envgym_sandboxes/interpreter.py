"""Collect the files of this machine that a sandbox needs to run Python: standard library, packages, libraries.

The Docker image is made of these files and bubblewrap binds them, so that programs find the same in both.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from envgym.errors import UserError
from envgym_sandboxes.disk_cache import cache_folder, cached_on_disk, fingerprint

__all__ = ["Interpreter", "copy_once", "this_interpreter"]

_LEFT_OUT = {
    "__pycache__",
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
_TOOLS = """
[ arch b2sum base32 base64 basename basenc cat chmod cksum comm cp csplit cut date dd df dir dircolors dirname
du echo env expand expr factor false fmt fold head hostid id install join link ln logname ls md5sum mkdir mkfifo
mknod mktemp mv nice nl nohup nproc numfmt od paste pathchk pr printenv printf ptx pwd readlink realpath rm
rmdir seq sha1sum sha224sum sha256sum sha384sum sha512sum shred shuf sleep sort split stat stdbuf stty sum sync
tac tail tee test timeout touch tr true truncate tsort tty uname unexpand uniq unlink vdir wc whoami yes awk
diff find grep sed xargs
""".split()  # noqa: SIM905 - a line for each would be a page
"""GNU's coreutils, and what shell scripts use besides them."""
_REQUIREMENT = re.compile(r"^[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """An interpreter as trees of files, each with its place in the sandbox and its source on this machine."""

    python: str
    """Absolute path of the executable inside."""
    site: str
    """Folder of third-party packages inside; this machine's own packages stay out of it."""
    trees: dict[str, Path]
    """Absolute path inside → file or folder on this machine; a later one may lie within an earlier one."""

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield every file that programs need: absolute path inside, file on this machine, links resolved.

        Compiled modules are left out, because the set of those that exist changes from day to day.
        """
        for inside, source in self.trees.items():
            real = source.resolve()
            yield from _walk(inside, real) if real.is_dir() else [(inside, real)]


def _walk(inside: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files in a folder by name, then those below; links to folders are not followed."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if not entry.is_dir() and not entry.name.startswith("_tkinter."):
            file = Path(entry.path)
            yield f"{inside}/{entry.name}", file.resolve() if entry.is_symlink() else file
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and entry.name not in _LEFT_OUT and "config-" not in entry.name:
            yield from _walk(f"{inside}/{entry.name}", Path(entry.path))


@functools.cache
def this_interpreter(packages: tuple[str, ...]) -> Interpreter:
    """Find the running interpreter with ``packages`` and their requirements; takes seconds once, then is cached.

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
    trees.setdefault(f"{executable.parent}/python3", executable.resolve())
    shell = shutil.which("sh")
    if shell:
        trees["/bin/sh"] = Path(shell).resolve()
    trees["/usr/bin"] = _tools()
    bare = Interpreter(python=str(executable), site=site, trees=trees)
    name = f"libraries-{fingerprint([], str(executable), *packages)[:12]}"
    return Interpreter(python=str(executable), site=site, trees=trees | _shared_libraries(bare, name))


def copy_once(source: Path, target: Path, copied: dict[tuple[int, int], Path]) -> None:
    """Copy a file, or link it to the copy that there is: a machine may have one program for all its tools.

    Args:
        source: the file.
        target: its new place.
        copied: copies by device and number of their sources; a new one is added.
    """
    about = source.stat()
    identity = about.st_dev, about.st_ino
    if identity in copied:
        target.hardlink_to(copied[identity])
    else:
        copied[identity] = Path(shutil.copy(source, target))


def _tools() -> Path:
    """Return a folder that holds this machine's tools alone: one folder, because every mount takes time."""
    found = [(name, Path(path).resolve()) for name in _TOOLS if (path := shutil.which(name))]
    folder = cache_folder() / f"tools-{fingerprint(found)[:12]}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="tools-") as scratch:
            made = Path(scratch, "made")
            made.mkdir()
            made.chmod(0o755)  # programs of another user look into it
            copied: dict[tuple[int, int], Path] = {}
            for name, source in found:
                copy_once(source, made / name, copied)
            with contextlib.suppress(OSError):  # another process was quicker
                made.rename(folder)
    return folder


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


def _shared_libraries(interpreter: Interpreter, name: str) -> dict[str, Path]:
    """Return the libraries that ``ldd`` names for the binaries, by the path where they are looked for.

    Cached on disk under ``name``.
    """
    files = list(interpreter.files())
    present = {source for _, source in files}

    def named() -> list[str]:
        binaries = [str(source) for source in present if source.suffix not in _TEXTS and _is_elf(source)]
        told = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
        return sorted(set(_LIBRARY.findall(told)))

    # The loader's own cache is rewritten whenever the machine's libraries change, so it dates the result.
    known = [(str(path), path) for path in (Path("/etc/ld.so.cache"),) if path.is_file()]
    mark = fingerprint([*files, *known], os.environ.get("LD_LIBRARY_PATH", ""))
    found = {where: Path(where).resolve() for where in cached_on_disk(name, mark, named)}
    return {where: source for where, source in found.items() if source not in present}


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
