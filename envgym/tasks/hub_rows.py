"""Rows of a Hugging Face data set, from a folder or from the hub, through the extra ``datasets``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envgym.errors import DataError
from envgym.optional_packages import require
from envgym.plain_files import cut_line, open_plain
from envgym.redaction import redacted

__all__ = ["HUB", "hub_rows"]

HUB = "hf:"
"""Prefix of a data set's name."""
_MAX_ROW = 16 * 2**20


def hub_rows(name: str) -> tuple[str, Iterator[tuple[int, dict[str, Any]]]]:
    """Return a title for error messages, and the rows of ``PATH@CONFIG#SPLIT``, numbered from 1.

    No code of a data set is run: ``datasets`` 4 and later load data files only.

    Raises:
        DataError: there is no such data set, configuration or split.
        UserError: the extra is not installed.
    """
    datasets = require("datasets", HUB + name)
    rest, _, split = name.partition("#")
    path, _, config = rest.partition("@")
    if path.startswith(("/", ".", "~")) and not Path(path).expanduser().is_dir():  # else the hub is queried
        raise DataError(f"{HUB}{name}: no such folder")
    for file in sorted(Path(path).expanduser().rglob("*.jsonl")):
        _check_lines(file)
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        found = _load(datasets, str(Path(path).expanduser()), config or None, split or "train")
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        reason = redacted(" ".join(str(error).split()))
        raise DataError(f"{HUB}{name}: {reason:.300}") from None
    finally:
        if not shown:
            datasets.enable_progress_bars()
    return name.rpartition("/")[2], enumerate(found, 1)


def _check_lines(path: Path) -> None:
    """Refuse a row that is no object: the library that reads them for ``datasets`` may crash on it.

    Raises:
        DataError: there is one, or the file cannot be read.
    """
    try:
        with open_plain(path) as file:
            for number in itertools.count(1):
                line, cut = cut_line(file, _MAX_ROW)
                if not line:
                    return
                if cut:
                    raise ValueError(f"row {number} is longer than {_MAX_ROW // 2**20} MiB")
                start = line.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
                if start and start != b"{":
                    raise ValueError(f"row {number}: expected an object, got {line.strip()[:20]!r}")
    except (OSError, ValueError) as error:
        raise DataError(f"{HUB}{path}: {error}") from None


def _load(datasets: Any, path: str, config: str | None, split: str) -> Any:
    saved = any((Path(path) / file).is_file() for file in ("dataset_dict.json", "state.json"))
    if not saved:
        return datasets.load_dataset(path, config, split=split)
    found = datasets.load_from_disk(path)
    if not isinstance(found, datasets.DatasetDict):
        return found
    if split not in found:
        raise ValueError(f"no split {split!r}; it has: {', '.join(found)}")
    return found[split]
