"""Draws the packages of charcmp and what they import, for docs/architecture.md.

    python scripts/draw_packages.py            (writes the picture into the document)
    python scripts/draw_packages.py --check    (exit status 1 if the document has an older one)

The picture is made from the code. Every import counts, including lazy ones and those only for
types. An arrow is left out if others lead to the same package.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grimp

PACKAGE = "charcmp"
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "architecture.md"
BEGIN, END = "<!-- scripts/draw_packages.py -->\n", "<!-- end -->\n"
Graph = dict[str, set[str]]


def packages() -> Graph:
    """Returns each package or module directly below charcmp, with those that it imports."""
    graph = grimp.build_graph(PACKAGE)
    rooms = {child.removeprefix(f"{PACKAGE}.") for child in graph.find_children(PACKAGE)}
    found: Graph = {room: set() for room in rooms}
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            a, b = (name.split(".")[1:2] for name in (importer, imported))
            if a and b and a != b:
                found[a[0]].add(b[0])
    return found


def reachable(graph: Graph, start: str) -> set[str]:
    """Returns all that a package imports, directly or through others."""
    found: set[str] = set()
    todo = [start]
    while todo:
        for other in graph[todo.pop()] - found:
            found.add(other)
            todo.append(other)
    return found


def reduced(graph: Graph) -> Graph:
    """Returns the graph without the arrows that follow from others."""
    return {
        room: {
            other
            for other in imports
            if not any(other in reachable(graph, third) for third in imports - {other})
        }
        for room, imports in graph.items()
    }


def picture(graph: Graph) -> str:
    """Returns the graph as Mermaid code, which code hosts draw."""
    lines = ["```mermaid", "graph TD"]
    for room, imports in sorted(reduced(graph).items()):
        lines += [f"    {room} --> {other}" for other in sorted(imports)]
    return "\n".join([*lines, "```", ""])


def main() -> None:
    graph = packages()
    if circles := [room for room in graph if room in reachable(graph, room)]:
        sys.exit(f"packages that import each other: {', '.join(sorted(circles))}")
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    new = f"{before}{BEGIN}{picture(graph)}{END}{after}"
    if "--check" in sys.argv[1:]:
        sys.exit(int(new != text))
    DOCUMENT.write_text(new)


if __name__ == "__main__":
    main()
