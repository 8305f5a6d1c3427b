"""What a user can say of a text: where it is, how it is laid out and split."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


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
