"""Guest part, run after ``source_file.py``: make a real module of source text, as an import of a file would.

Classes of the module can be pickled and found by their module's name, ``inspect`` finds their source, and
processes with a fresh interpreter can import the module again, because it has a file on their path.
"""

import contextlib
import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envgym.sandbox.source_file import execute, write_source

MODULES = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"modules-{os.getpid()}")  # noqa: PTH118 - starts faster
"""Folder of the modules' files."""


def module_path(name: str) -> str:
    """Return the path of a module's file."""
    return os.path.join(MODULES, f"{name}.py")  # noqa: PTH118 - as above


def load_module(name: str, source: str, preamble: str = "") -> Any:
    """Run ``preamble``, then ``source``, as one module, and return what is registered under its name.

    The two are compiled one by one, since a source may begin with what only a beginning may hold.
    """
    path = module_path(name)
    module = ModuleType(name)
    module.__loader__ = SourceFileLoader(name, path)
    module.__spec__ = ModuleSpec(name, module.__loader__, origin=path)
    module.__spec__.has_location = True
    module.__file__ = path
    module.__package__ = ""
    sys.modules[name] = module
    parts = [(preamble, "<preamble>"), (source, path)] if preamble else [(source, path)]
    with contextlib.suppress(OSError):  # the disk is full: only a fresh interpreter needs the file
        os.makedirs(MODULES, exist_ok=True)  # noqa: PTH103 - as above
        write_source(_one_by_one(parts) if preamble else source, path)
        sys.path.append(MODULES)
    for text, where in parts:
        execute(text, where, module.__dict__)
    return sys.modules.get(name, module)


def _one_by_one(parts: list[tuple[str, str]]) -> str:
    """Return a source that runs each part as ``load_module`` does."""
    made = [(text.removeprefix("\ufeff"), where) for text, where in parts]
    return "".join(f"exec(compile({text!r}, {where!r}, 'exec'), globals())\n" for text, where in made)
