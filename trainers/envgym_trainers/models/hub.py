"""Models of the Hugging Face hub: ``hf:org/name``, with ``@revision`` where one is pinned."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from envgym.errors import UserError

__all__ = ["HUB", "check_hub_name", "hub_folder"]

HUB = "hf:"
"""What the path of such a model begins with; no other path is looked for in a network."""
_NAME = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[A-Za-z0-9][\w./-]*))?")
_FILES = ["*.json", "*.jinja", "*.safetensors", "*.model", "merges.txt", "vocab.txt"]
"""What a model needs; weights in pickles and code stay where they are."""


def check_hub_name(path: str) -> tuple[str, str | None]:
    """Return the id and the revision that a path names; the network is not asked.

    Raises:
        UserError: it is no such name.
    """
    found = _NAME.fullmatch(path.removeprefix(HUB))
    if not found:
        raise UserError(f"model {path!r}: expected {HUB}organisation/name, or {HUB}organisation/name@revision")
    return found["id"], found["revision"]


def hub_folder(path: str) -> Path:
    """Fetch a model, or find it in the cache of the hub's library, and return its folder.

    Without a pinned revision the hub is asked for the newest; if it does not answer, the cached one is taken. With
    the environment variable ``HF_HUB_OFFLINE`` set, it is never asked.

    Raises:
        UserError: there is no such model, it cannot be reached, or it has no weights in safetensors.
    """
    name, revision = check_hub_name(path)
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"model {path!r} is not in the cache and cannot be fetched: {reason} Check the name and the network, "
            "unset HF_HUB_OFFLINE if it is set, log in with hf auth login where the model asks for it; or fetch "
            f"it where there is a network with hf download {name} --local-dir FOLDER, and give the folder"
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"model {path!r} has no weights in safetensors; other formats can run code, and are not read"
        )
    return folder
