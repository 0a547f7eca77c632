"""Names of files that cross the border of a sandbox."""

from __future__ import annotations

__all__ = ["check_name"]

_MAX_PART_BYTES = 255
_MAX_NAME_BYTES = 1024
_MAX_DEPTH = 32


def check_name(path: str) -> bytes:
    """Return ``path`` encoded if it is a plain relative name, else refuse it.

    Raises:
        ValueError: it is empty, absolute, too long or too deep, climbs out, or a part of it begins with a dash
            or holds a control character or what UTF-8 cannot express.
    """
    try:
        name = path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"file name {path!r:.100} is not expressible in UTF-8") from error
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.startswith("-") for part in parts) or not path.isprintable():
        raise ValueError(f"file name {path!r:.100} must be relative, of plain parts, without '..', '-' or controls")
    longest = max(len(part.encode()) for part in parts)
    if len(name) > _MAX_NAME_BYTES or longest > _MAX_PART_BYTES or len(parts) > _MAX_DEPTH:
        raise ValueError(
            f"file name {path!r:.100} exceeds {_MAX_NAME_BYTES} bytes, {_MAX_PART_BYTES} a part or {_MAX_DEPTH} parts"
        )
    return name
