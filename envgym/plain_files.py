"""Read files that somebody else may have written or damaged: regular ones only, and no more than a bound."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["cut_line", "open_plain", "read_text", "utf8"]

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file. A pipe may never end and a device has no end: neither is waited for.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be opened, or is something else; the message is a phrase after the file's name.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"cannot be opened ({error.strerror})") from None
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    raise ValueError("is a folder, not a file" if stat.S_ISDIR(mode) else "is not a regular file")


def read_text(path: Path, limit: int) -> str:
    """Return the text of a regular file in UTF-8, without a byte order mark.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, is larger than ``limit`` bytes or not UTF-8; the message is a phrase after
            the file's name.
    """
    with open_plain(path) as file:
        try:
            raw = file.read(limit + 1)
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror})") from None
    if len(raw) > limit:
        raise ValueError(f"is larger than {limit // 2**20} MiB")
    return utf8(raw)


def utf8(raw: bytes) -> str:
    """Decode UTF-8, without a byte order mark.

    Raises:
        ValueError: it is something else; the message is a phrase after the name of what was read.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "UTF-16" if raw.startswith(_UTF16) else f"byte 0x{raw[error.start]:02x} at {error.start}"
        raise ValueError(f"is not UTF-8 text ({kind}): save it as UTF-8") from None


def cut_line(file: BinaryIO, limit: int) -> tuple[bytes, bool]:
    """Return the next line with its end, or the first ``limit`` bytes of a longer one, and whether it is longer.

    Raises:
        OSError: the file cannot be read.
    """
    line = file.readline(limit)
    return line, len(line) == limit and not line.endswith(b"\n")
