"""Every module of core says what is public, in order, and documents it; errors form the tree that is drawn."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import envgym
from envgym import errors
from envgym.errors import UnknownNameError

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(envgym.__path__, "envgym.")
    if ".guest_" not in module.name  # they run inside a sandbox, joined to one program
]


@pytest.mark.parametrize("module", [m for m in MODULES if hasattr(m, "__all__")], ids=lambda m: m.__name__)
def test_public_names_exist_are_listed_once_and_are_documented(module: ModuleType) -> None:
    names = module.__all__
    assert len(set(names)) == len(names)
    assert module.__doc__
    for name in names:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module.__name__}.{name}"


def test_the_names_of_envgym_are_sorted_and_listed() -> None:
    """Names are sorted and offered by ``dir``, and a misspelt one is an ordinary error."""
    names = envgym.__all__
    assert names == sorted(names)
    assert set(names) <= set(dir(envgym))
    with pytest.raises(AttributeError, match="module 'envgym' has no attribute 'Chatenv'"):
        _ = envgym.Chatenv


def test_the_names_for_type_checkers_are_those_that_are_offered() -> None:
    """``__all__``, the lazy imports and those under ``TYPE_CHECKING`` are three lists of the same objects."""
    tree = ast.parse(Path(envgym.__file__).read_text(encoding="utf-8"))
    found = {
        (alias.name, node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("envgym.")
        for alias in node.names
        if alias.name != "register_in_gymnasium"
    }
    assert {name for name, _ in found} == set(envgym.__all__)
    for name, module in found:
        assert getattr(envgym, name) is getattr(importlib.import_module(module), name)


def test_the_errors_form_the_tree_that_is_drawn() -> None:
    """Each line of the drawing, indented by four columns a level, is a class and its parent."""
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip("│├└─ ").partition(" ")[0]
        if name in errors.__all__:
            level = (len(line) - len(line.lstrip("│├└─ "))) // 4
            above[level:] = [name]
            drawn[name] = above[level - 1] if level else "Exception"
    assert drawn == {name: getattr(errors, name).__base__.__name__ for name in errors.__all__}


def test_an_unknown_name_is_told_what_is_near_and_what_is_allowed() -> None:
    told = str(UnknownNameError("tool", "serch", ["search", "open"], "see the docs"))
    assert told == "unknown tool 'serch'; did you mean 'search'? allowed: open, search; see the docs"
    assert str(UnknownNameError("tool", "x", [])) == "unknown tool 'x'; allowed: nothing is installed"
    assert len(str(UnknownNameError("tool", "x" * 10_000, ["a"]))) < 500
