"""What a user can say of a text: where it is, how it is laid out and split; the built-in ones.

A new dataset is its file in conf/dataset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import yaml
from omegaconf import MISSING

from charcmp.files import config_dir


@dataclass
class DatasetConfig:
    name: str | None = None  # in run ids and tables; for dataset=text the file's stem
    source: str = MISSING  # paper | file | pydocs | pysrc
    path: str | None = None  # a file of one's own
    url: str | None = None
    num_chars: int | None = None  # what a right download has
    num_symbols: int | None = None
    stand_ins: dict[str, str] = field(default_factory=dict)  # sha256 -> what this other file is
    layout: str = "columns"  # columns (the paper's) | contiguous
    split: list[float] = field(default_factory=lambda: [80.0, 10.0, 10.0])  # percent


@cache
def builtin_datasets() -> dict[str, DatasetConfig]:
    """The datasets of conf/dataset that name a text of their own, by the name of their file."""
    datasets = {}
    for file in sorted((config_dir() / "dataset").glob("*.yaml")):
        keys = yaml.safe_load(file.read_bytes())
        del keys["defaults"]
        if keys["source"] != "file":
            datasets[file.stem] = DatasetConfig(**keys)
    return datasets


def is_fetched(dataset: DatasetConfig) -> bool:
    """Whether the text is one to download, checked by its length and number of symbols."""
    return dataset.source == "paper"
