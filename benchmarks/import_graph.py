"""Count the rooms of each package, the imports between them, and the circles.

    python benchmarks/import_graph.py [PACKAGE ...]

A room is a module or a folder directly inside a package; an arrow is one room that imports another, however often.
``lint-imports`` enforces what this only counts.
"""

from __future__ import annotations

import graphlib
import sys

import grimp

PACKAGES = ("envgym", "envgym_environments", "envgym_sandboxes", "envgym_trainers")


def main() -> None:
    """Print one line per package, then the module-level totals."""
    graph = grimp.build_graph(*(sys.argv[1:] or PACKAGES), cache_dir=None)
    for package in sys.argv[1:] or PACKAGES:
        rooms = sorted(graph.find_children(package))
        arrows = {
            room: {
                other
                for other in rooms
                if other != room and graph.direct_import_exists(importer=room, imported=other, as_packages=True)
            }
            for room in rooms
        }
        print(f"{package:<20} rooms {len(rooms):3}  arrows {sum(map(len, arrows.values())):3}  {_circle(arrows)}")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    print(f"modules {len(imports)}  imports {sum(map(len, imports.values()))}  {_circle(imports)}")


def _circle(arrows: dict[str, set[str]]) -> str:
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        return f"circle: {' -> '.join(error.args[1])}"
    return "no circle"


if __name__ == "__main__":
    main()
