"""What n-grams and compressors make of a test text: records in a results folder, checked when read.

results/baselines/<text>-<layout>-<hash>.json
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from charcmp.files import canonical_json, write_json
from charcmp.runs.result import (
    CorruptFileError,
    Count,
    DatasetName,
    Layout,
    Nats,
    Params,
    Sha256,
    Split,
    Text,
    read_json,
)

VERSION = 1  # of how they are computed: moves when their numbers do
MAX_BYTES = 1 << 20


class Baseline(Struct, frozen=True, kw_only=True):
    """A predictor of the next character that no gradient trained."""

    name: Text
    nats_per_char: Nats  # test text, given the training text
    size: Count | None = None  # stored counts of an n-gram model
    budget: Params | None = None  # the number of parameters that it was pruned to in counts
    note: Text | None = None

    def __post_init__(self) -> None:
        if not (self.name + (self.note or "")).isprintable():
            raise ValueError(f"with control characters: {self.name!r}")


class TestText(Struct, frozen=True, kw_only=True):
    """The characters that are scored: losses on one test text may be compared."""

    __test__ = False  # for pytest

    corpus_sha256: Sha256
    layout: Layout
    split: Split
    num_chars: Count
    # They decide which characters are test text in `columns`; None where they do not.
    batch_size: Count | None
    unroll_steps: Count | None

    @classmethod
    def of(
        cls,
        *,
        corpus_sha256: str,
        layout: Layout,
        split: Sequence[float],
        num_chars: int,
        batch_size: int,
        unroll_steps: int,
    ) -> TestText:
        is_columns = layout == "columns"
        return cls(
            corpus_sha256=corpus_sha256,
            layout=layout,
            split=[float(part) for part in split],
            num_chars=num_chars,
            batch_size=batch_size if is_columns else None,
            unroll_steps=unroll_steps if is_columns else None,
        )


class Baselines(Struct, frozen=True, kw_only=True):
    """A file of the folder."""

    version: int
    dataset: DatasetName
    test_text: TestText
    budgets: Annotated[list[Params], Meta(max_length=1000)]  # asked for, ascending
    baselines: Annotated[list[Baseline], Meta(max_length=1000)]

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"version {self.version}, but {VERSION} is read here")


DECODER = msgspec.json.Decoder(Baselines)


def baselines_dir(results_dir: str | Path) -> Path:
    return Path(results_dir) / "baselines"


def baselines_file(results_dir: str | Path, name: str, test_text: TestText) -> Path:
    """Where the baselines of a test text are.

    Args:
        results_dir: the folder of all results.
        name: of the text, as it may stand in the name of a file.
        test_text: what is scored.
    """
    key = canonical_json([VERSION, msgspec.to_builtins(test_text)])
    number = hashlib.sha256(key.encode()).hexdigest()[:8]
    return baselines_dir(results_dir) / f"{name}-{test_text.layout}-{number}.json"


def read_baselines(file: Path) -> Baselines | None:
    """None where there are none.

    Raises:
        CorruptFileError: if the file is there but is no such record.
    """
    return read_json(file, DECODER, MAX_BYTES)


def write_baselines(file: Path, baselines: Baselines) -> None:
    """UserError if they cannot be written."""
    write_json(file, msgspec.to_builtins(baselines))


def load_baselines(results_dir: str | Path) -> tuple[list[Baselines], list[str]]:
    """Those of a results folder, and a line for each file that is none."""
    found, complaints = [], []
    for file in sorted(baselines_dir(results_dir).glob("*.json")):
        try:
            if (baselines := read_baselines(file)) is not None:
                found.append(baselines)
        except CorruptFileError as error:
            complaints.append(f"{error}; left out")
    return found, complaints


def of_text(all_baselines: Iterable[Baselines], test_text: TestText) -> list[Baseline]:
    """The baselines on one test text; [] where there are none."""
    return [
        baseline
        for baselines in all_baselines
        if baselines.test_text == test_text
        for baseline in baselines.baselines
    ]
