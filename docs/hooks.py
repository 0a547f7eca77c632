"""Make the pages of the site that ``docs/`` does not hold: the root folder's, the recipe and the API reference.

The references are not committed: made anew at each build, they cannot fall behind the code.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from envgym.cli.recipe import PARTS, part_tables, stage_tables
from envgym.plugins.registry import Registry
from envgym.runs.recipe_text import as_markdown
from envgym.runs.stage import stages

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
PACKAGES = (
    "envgym",
    "clusters/envgym_clusters",
    "environments/envgym_environments",
    "sandboxes/envgym_sandboxes",
    "trainers/envgym_trainers",
)
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)")
SETTINGS = {
    "engine": ("Engines", "engine"),
    "objective": ("Objectives", "objective"),
    "mix": ("Environments", "mix.settings"),
    "sandbox": ("Sandboxes", "sandbox.settings"),
    "cluster": ("Clusters", "cluster"),
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give every room its place in the navigation."""
    entry = next(item for item in config.nav or [] if "API reference" in item)
    entry["API reference"] = [
        {package: [{room.removeprefix(f"{package}."): f"api/{room}.md"} for room in rooms]}
        for package, rooms in _rooms().items()
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of ``docs/`` holds."""
    for source, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "recipes.md", content="\n".join(_recipes())))
    for room, path in chain.from_iterable(rooms.items() for rooms in _rooms().values()):
        files.append(File.generated(config, f"api/{room}.md", content="\n".join(_reference(room, path))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Turn links between files of the repository into links of the site."""
    sources = {target: source for source, target in ROOT_PAGES.items()}
    name = page.file.src_uri
    folder = posixpath.dirname(sources.get(name, f"docs/{name}"))

    def replaced(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        found = ROOT_PAGES.get(target, target.removeprefix("docs/"))
        if found == target:  # a file that has no page
            return f"{match[1]}{config.repo_url}/blob/main/{target}"
        return match[1] + posixpath.relpath(found, posixpath.dirname(name) or ".")

    return LINK.sub(replaced, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Drop the second colon that announces a block of code in a docstring."""
    return html.replace("::</p>", ":</p>")


def _rooms() -> dict[str, dict[str, Path]]:
    """Return what has a page, by package and name: every folder of code and every module beside them."""
    rooms: dict[str, dict[str, Path]] = {}
    for package in map(ROOT.joinpath, PACKAGES):
        rooms[package.name] = {
            f"{package.name}.{path.stem}": path
            for path in sorted(package.iterdir())
            if (path / "__init__.py").is_file() or (path.suffix == ".py" and path.stem != "__init__")
        }
    return rooms


def _reference(room: str, path: Path) -> Iterator[str]:
    """Yield the page of a room: what its ``__init__`` defines, then each module in it.

    What an ``__init__`` re-exports is described once, where it is defined.
    """
    yield f"# {room}\n"
    if path.is_file():
        yield f"::: {room}\n"
        return
    for file in sorted(path.rglob("*.py")):
        module = ".".join([room, *file.relative_to(path).with_suffix("").parts]).removesuffix(".__init__")
        inner = module != room
        options: dict[str, Any] = {"show_root_heading": inner, "show_root_toc_entry": inner}
        if file.stem == "__init__":
            body = ast.parse(file.read_text(encoding="utf-8")).body
            own = [node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
            options["members"] = [name for name in own if not name.startswith("_")] or False
        yield f"::: {module}\n    options: {json.dumps(options)}\n"


def _recipes() -> Iterator[str]:
    yield (
        "# Recipes\n\nA recipe is a TOML file that describes a run. `envgym recipe` prints this reference, and "
        "`envgym recipe --toml` a recipe to start from. `--set a.b=c` overrides any key on the command line; "
        "unknown keys are refused.\n"
    )
    for stage in _own(stages):
        yield f'## Stage `{stage}`\n\n`stage = "{stage}"`\n'
        yield as_markdown(stage_tables(stage))
    for part in PARTS:
        title, path = SETTINGS[part]
        yield f"## {title}\n"
        for name in _own(PARTS[part].load_registry()):
            yield f"### `{name}`\n"
            yield as_markdown(part_tables(part, name, path), level=4)


def _own(registry: Registry[Any]) -> list[str]:
    """Return the plugins that ship with the project, whatever else is installed."""
    return [name for name, spec in registry.plugins().items() if spec.distribution == "envgym"]
