"""Damage files as crashes, disks, editors and enemies do, by a seed."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, -(2**80), 10**400, 1e308, -1e308, 1e-320, float("nan"), float("inf"), "", "x",
    "\u202e", "\x1b[2J", "\ud800", [], {}, [None], [[]], {"": None}, {"a": {"b": []}}, "NaN", "1", 1.5,
    "</script><script>",
)  # fmt: skip
BYTES = (
    b"", b"\xff\xfe\x00", b"\xef\xbb\xbf{}\n", b"null\n", b"[]\n", b'"text"\n', b"{\n", b"\x00" * 64, b"NaN\n",
    b"1e999\n",
    b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000 + b"\n", b'{"step": ' + b"9" * 400 + b"}\n", b"\n\n\n",
    "{}\n".encode("utf-16"), b'{"schema": 99}\n', b'{"schema": "x"}\n', b'{"schema": true}\n', b"x = 1\n",
    b"{}" * 9,
    b'{"step": 1, "step": null}\n', b'{"a": "\\ud800"}\n', b"-\n", b"{} {}\n",
)  # fmt: skip


def damage_text(raw: bytes, rng: random.Random) -> bytes:
    """Return other bytes: cut, changed, repeated, or some that are nobody's."""
    at = rng.randrange(len(raw) + 1)
    match rng.randrange(7):
        case 0:
            return raw[:at]
        case 1:
            return raw[:at] + rng.randbytes(rng.randrange(1, 9)) + raw[at:]
        case 2:
            return raw[:at] + rng.choice(BYTES) + raw[at:]
        case 3:
            return rng.choice(BYTES)
        case 4:
            return raw.replace(
                rng.choice((b'"', b":", b",", b"{", b"1", b"\n")), rng.choice((b"", b"[", b"-", b"\xe9"))
            )
        case 5:
            return raw[:at] + raw[at + rng.randrange(1, 40) :]
        case _:
            return raw + rng.choice(BYTES) + raw


def damage_values(values: Any, rng: random.Random) -> Any:
    """Return JSON values with one or a few in the places of others, or missing."""
    for _ in range(rng.randrange(1, 4)):
        place, key = None, None
        inner = values
        while isinstance(inner, dict | list) and inner and (place is None or rng.random() < 0.8):
            key = rng.choice(list(inner)) if isinstance(inner, dict) else rng.randrange(len(inner))
            place, inner = inner, inner[key]
        if place is None:
            return rng.choice(VALUES)
        if rng.random() < 0.3:
            del place[key]
        elif isinstance(place, dict) and rng.random() < 0.1:
            place[rng.choice(("\x1b[2J", "", "a" * 300, "step", "reward/x", "overall"))] = rng.choice(VALUES)
        else:
            place[key] = rng.choice(VALUES)
    return values


def damage_json(raw: bytes, rng: random.Random) -> bytes:
    """Return JSON, or lines of JSON, with other values in one of its places."""
    whole = raw.count(b"\n{") == 0
    rows = [raw] if whole else raw.splitlines()
    at = rng.randrange(len(rows))
    try:
        rows[at] = json.dumps(damage_values(json.loads(rows[at]), rng)).encode()
    except ValueError:
        return damage_text(raw, rng)
    return b"\n".join(rows) + b"\n"


def damage_file(path: Path, rng: random.Random) -> None:
    """Damage a file, or put something else in its place."""
    raw = path.read_bytes()
    kind = rng.randrange(12)
    if kind < 5 and raw and path.suffix != ".toml":
        path.write_bytes(damage_json(raw, rng))
    elif kind < 10:
        path.write_bytes(damage_text(raw, rng))
    else:
        path.unlink()
        _instead(rng)(path)


def _instead(rng: random.Random) -> Callable[[Path], object]:
    return rng.choice(
        (
            Path.mkdir,
            os.mkfifo,
            lambda path: path.symlink_to(path.name),
            lambda path: path.symlink_to("/dev/zero"),
            lambda path: path.symlink_to(path.parent),
            lambda path: None,
        )
    )


def damaged_copy(whole: Path, place: Path, rng: random.Random) -> Path:
    """Copy a run's folder to ``place``, with one to three of its files damaged, or a folder that is a file."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    for path in rng.sample(files, rng.randrange(1, 4)):
        damage_file(path, rng)
    if rng.random() < 0.05:
        folder = place / rng.choice(("trajectories", "evaluations", "controls"))
        shutil.rmtree(folder)
        if rng.random() < 0.5:
            folder.write_text("a file")
    return place
