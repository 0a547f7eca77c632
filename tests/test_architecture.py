"""Names that lead a reader astray: a module called like one of the standard library, two classes of one name."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("envgym", "clusters", "environments", "sandboxes", "trainers")


def _sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def test_no_module_bears_the_name_of_a_standard_one() -> None:
    clashes = [path for path in _sources() if path.stem in sys.stdlib_module_names and path.stem != "__init__"]
    folders = {path.parent for path in _sources() if path.parent.name in sys.stdlib_module_names}
    assert (clashes, folders) == ([], set())


def test_no_two_public_classes_share_a_name() -> None:
    """A nested ``Config`` is named by the class around it and does not count."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in _sources():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(ROOT)))
    assert {name: places for name, places in found.items() if len(places) > 1} == {}
