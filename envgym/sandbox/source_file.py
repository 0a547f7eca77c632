"""Run source text as the interpreter runs a file: whatever its first line, its line ends and its future imports.

It imports only the standard library, because its text is also sent into sandboxes.
"""

import codecs
import contextlib
import io
import linecache
import os
import re
from typing import Any

__all__ = ["as_file", "execute", "write_source"]

_BOM = "\ufeff"
_COOKIE = re.compile(r"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", re.ASCII)
_BLANK = re.compile(r"^[ \t\f]*(?:#.*)?\r?$", re.ASCII)


def execute(text: str, path: str, namespace: dict[str, Any]) -> None:
    """Run ``text`` as the content of ``path``, which tracebacks and ``inspect`` quote even if no file is there.

    Characters are taken as they stand: a declared encoding is that of a file, and the text has been decoded.

    Raises:
        SyntaxError: as the interpreter raises it; also for an encoding that does not exist.
    """
    text = text.removeprefix(_BOM)
    if declared := _declared(text):
        _check(declared)
    lines = io.StringIO(text, newline=None).readlines()
    linecache.cache[path] = (len(text), None, lines, path)
    exec(compile(text, path, "exec", dont_inherit=True), namespace)  # noqa: S102 - in a sandbox


def as_file(text: str) -> bytes:
    """Return the bytes of a file that holds ``text``: in the encoding that it declares, or else in UTF-8."""
    if declared := _declared(text.removeprefix(_BOM)):
        with contextlib.suppress(LookupError, UnicodeError):
            return text.encode(declared)
    return text.encode("utf-8", "surrogatepass")


def _declared(text: str) -> str:
    """Return the encoding that one of the first two lines declares, ``""`` for none."""
    for line in text.split("\n", 2)[:2]:
        if found := _COOKIE.match(line):
            return found[1]
        if not _BLANK.match(line):
            break
    return ""


def _check(encoding: str) -> None:
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise SyntaxError(f"unknown encoding: {encoding}") from None


def write_source(text: str, path: str) -> None:
    """Write ``text`` as the file ``path``, in place of whatever stands there.

    Raises:
        OSError: there is no room, or a folder of that name.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - pathlib is slow to import where this runs
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(target, "wb") as file:
        file.write(as_file(text))
