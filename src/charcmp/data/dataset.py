"""A dataset's options: where its text is, how it is laid out and split; and the built-in datasets.

To add a dataset, add a file to conf/dataset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from charcmp.files import SAFE_NAME, config_dir
from charcmp.values import MISSING, Rule, one_of, option, or_null

NAME = Rule(SAFE_NAME.fullmatch, "letters, digits, '_', '.' and '-' only, as it names folders")
SPLIT = Rule(
    lambda s: len(s) == 3 and all(part > 0 for part in s) and abs(sum(s) - 100) < 1e-9,
    "three positive percentages that sum to 100",
)
MAX_NAME = 80  # characters
EARLIER_SOURCES = {"paper": "download"}  # their names in configurations of earlier commits


@dataclass
class DatasetConfig:
    """The keys dataset.*: where a text comes from, what it must be, its layout and its split."""

    name: str | None = option(
        None, "the text's name in run ids and tables; null: its file's name", or_null(NAME)
    )
    source: str = option(
        MISSING,
        "where the text comes from",
        one_of(("download", "file", "pydocs", "pysrc")),
    )
    path: str | None = option(None, "a file of your own, with dataset=text")
    url: str | None = option(None, "address of a download")
    num_chars: int | None = option(None, "size of a correct download, in bytes")
    num_symbols: int | None = option(None, "number of distinct bytes in a correct download")
    stand_ins: dict[str, str] = option({}, "other files that are accepted: {sha256: what it is}")
    layout: str = option(
        "columns",
        "where validation and test text lie: at each stream's end (columns), or the text's",
        one_of(("columns", "contiguous")),
    )
    split: list[float] = option(
        [80.0, 10.0, 10.0], "percent to train on, to validate and to test", SPLIT
    )

    def __post_init__(self) -> None:
        self.source = EARLIER_SOURCES.get(self.source, self.source)


@cache
def builtin_datasets() -> dict[str, DatasetConfig]:
    """Returns the datasets of conf/dataset by file name, without those for a user's own text."""
    import yaml  # here, since most of help and completion needs no YAML

    datasets = {}
    for file in sorted((config_dir() / "dataset").glob("*.yaml")):
        keys = yaml.safe_load(file.read_bytes())
        del keys["defaults"]
        if keys["source"] != "file":
            datasets[file.stem] = DatasetConfig(**keys)
    return datasets


def is_fetched(dataset: DatasetConfig) -> bool:
    """Returns whether the text is downloaded, and so checked by its length and its symbols."""
    return dataset.source == "download"


def file_title(path: str | Path) -> str:
    """Returns a user's text's name in tables: its file's stem, unprintable characters replaced.

    A file called like a built-in dataset is no such text, and gets another name.
    """
    title = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}"
                    for char in Path(path).stem)  # fmt: skip
    title = title[:MAX_NAME].strip() or "text"
    return f"{title} (file)" if title in builtin_datasets() else title


def safe_name(stem: str) -> str:
    """Returns a text's name in a form that run ids and folder names may contain."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", stem).strip("-.")[:40] or "text"
