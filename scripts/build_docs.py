"""Builds the documents as a site, build/site/index.html, and checks their links.

    python scripts/build_docs.py

The site generator takes one folder, so the documents and every file that they link to are copied
into one, laid out as in the repository. Exit status 1 if a link leads nowhere.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt

CHECKOUT = Path(__file__).resolve().parents[1]
COPY = CHECKOUT / "build" / "docs"
STYLE = CHECKOUT / "docs" / "site.css"


def documents() -> list[Path]:
    """Returns the Markdown files of the root folder and of docs/."""
    return sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md")])


def links(document: Path) -> Iterator[str]:
    """Yields the targets of a document's links and pictures, as written."""
    for block in MarkdownIt("commonmark").enable("table").parse(document.read_text()):
        for token in block.children or []:
            for name in ("href", "src"):
                if target := token.attrGet(name):
                    yield str(target)


def linked_files(document: Path) -> Iterator[Path]:
    """Yields the files of the repository that a document links to, whether they exist or not."""
    for target in links(document):
        path = target.partition("#")[0]
        if path and ":" not in path:
            yield (document.parent / path).resolve()


def main() -> None:
    shutil.rmtree(COPY, ignore_errors=True)
    copied = documents()
    wanted = {file for document in copied for file in linked_files(document)}
    if missing := sorted(str(file) for file in wanted if not file.is_file()):
        sys.exit("linked from the documents, but no files: " + ", ".join(missing))
    for file in {STYLE, *copied, *wanted}:
        to = COPY / file.relative_to(CHECKOUT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, to)
    build = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    sys.exit(subprocess.run(build, cwd=CHECKOUT).returncode)


if __name__ == "__main__":
    main()
