"""Provide the image that programs run in: built here without a registry, or a public one pinned by its digest."""

from __future__ import annotations

import compileall
import fcntl
import functools
import hashlib
import logging
import py_compile
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from envgym.errors import UserError
from envgym_sandboxes.disk_cache import cache_folder, cached_on_disk, fingerprint
from envgym_sandboxes.interpreter import Interpreter, copy_once, this_interpreter

__all__ = ["REPOSITORY", "Image", "built_image", "pinned_image"]

REPOSITORY = "envgym-sandbox"
_LOG = logging.getLogger("envgym.sandbox.interface")
_PINNED = re.compile(r"^(?:[^@\s]+@)?sha256:[0-9a-f]{64}$")
_LAYOUT = 4
"""Version of the image's own files; raise it when they change, so that no old image is taken for a new one."""
_ACCOUNTS = {
    "/etc/passwd": b"root:x:0:0:root:/:/bin/sh\nprogram:x:61000:61000:program:/work:/bin/sh\n",
    "/etc/group": b"root:x:0:\nprogram:x:61000:\n",
}
_FOLDERS = ("dev", "proc", "sys", "tmp", "work", "program")


class Image:
    """An image that is present, with the place of its Python.

    Args:
        reference: name or digest for creating containers.
        python: path of the interpreter inside.
    """

    def __init__(self, reference: str, python: str) -> None:
        self.reference = reference
        self.python = python


def pinned_image(client: docker.DockerClient, reference: str, python: str) -> Image:
    """Return a public image that the machine already has.

    Raises:
        UserError: the reference carries no digest, or the image is not present.
    """
    if not _PINNED.match(reference):
        raise UserError(
            f"image {reference!r} is not pinned; name it by its digest, e.g. python@sha256:<64 hex digits>"
        )
    try:
        client.images.get(reference)
    except ImageNotFound as error:
        raise UserError(f"image {reference!r} is not on this machine; run: docker pull {reference}") from error
    return Image(reference, python)


def built_image(client: docker.DockerClient, packages: tuple[str, ...]) -> Image:
    """Build the image of this machine's own interpreter, or find it built; takes half a minute the first time.

    Raises:
        UserError: the interpreter cannot be packed; see ``this_interpreter``.
    """
    interpreter = this_interpreter(packages)
    reference = f"{REPOSITORY}:py{sys.version_info.major}.{sys.version_info.minor}-{_digest(packages)}"
    with _one_builder():
        try:
            client.images.get(reference)
        except ImageNotFound:
            _build(client, interpreter, reference)
    return Image(reference, interpreter.python)


@functools.cache
def _digest(packages: tuple[str, ...]) -> str:
    interpreter = this_interpreter(packages)
    files = list(interpreter.files())

    def of_contents() -> str:
        digest = hashlib.sha256(f"layout {_LAYOUT}".encode())
        for inside, source in files:
            with source.open("rb") as file:
                digest.update(f"{inside}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()[:12]

    name = f"image-{fingerprint([], interpreter.python, *packages)[:12]}"
    return str(cached_on_disk(name, fingerprint(files, f"layout {_LAYOUT}"), of_contents))


@contextmanager
def _one_builder() -> Iterator[None]:
    with (cache_folder() / "image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(client: docker.DockerClient, interpreter: Interpreter, reference: str) -> None:
    _LOG.info("building sandbox image %s from this interpreter; once, about half a minute", reference)
    repository, _, tag = reference.partition(":")
    with tempfile.TemporaryDirectory(prefix="envgym-image-") as scratch:
        root = Path(scratch, "root")
        _stage(root, interpreter)
        with tarfile.open(Path(scratch, "image.tar"), mode="w") as archive:
            archive.add(root, arcname=".", filter=_as_root)
        client.api.import_image_from_file(str(Path(scratch, "image.tar")), repository=repository, tag=tag)
    _LOG.info("built sandbox image %s", reference)


def _stage(root: Path, interpreter: Interpreter) -> None:
    """Lay the image's files out under ``root``, with modules compiled, because nothing can be written inside."""
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True)
    for inside, content in _ACCOUNTS.items():
        _place(root, inside).write_bytes(content)
    copied: dict[tuple[int, int], Path] = {}
    for inside, source in interpreter.files():
        copy_once(source, _place(root, inside), copied)
    compileall.compile_dir(
        root,
        maxlevels=64,
        quiet=2,
        stripdir=str(root),
        prependdir="/",
        workers=0,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def _place(root: Path, inside: str) -> Path:
    target = root / inside.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry
