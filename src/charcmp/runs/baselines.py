"""Scores of n-gram models and compressors on a test text, kept in a results folder.

The files are results/baselines/<text>-<layout>-<hash>.json; they are checked when read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from charcmp.files import canonical_json, write_json
from charcmp.runs.reading import CorruptFileError, check_version, read_json
from charcmp.runs.result import (
    Count,
    DatasetName,
    Layout,
    Nats,
    Params,
    Sha256,
    Split,
    Text,
)

VERSION = 1  # raised when a change of the computation changes the numbers
MAX_BYTES = 1 << 20


class Baseline(Struct, frozen=True, kw_only=True):
    """A predictor of the next character that was not trained by gradients, and its score."""

    name: Text
    nats_per_char: Nats  # of the test text, given the training text
    size: Count | None = None  # number of stored counts of an n-gram model
    budget: Params | None = None  # the parameter budget; the model is pruned to this many counts
    note: Text | None = None

    def __post_init__(self) -> None:
        if not (self.name + (self.note or "")).isprintable():
            raise ValueError(f"with control characters: {self.name!r}")


class TestText(Struct, frozen=True, kw_only=True):
    """Which characters are scored: losses may be compared if this is equal."""

    __test__ = False  # tells pytest that this is not a test

    corpus_sha256: Sha256
    layout: Layout
    split: Split
    num_chars: Count
    # In `columns` these decide which characters are test text; None in `contiguous`.
    batch_size: Count | None
    unroll_steps: Count | None

    @classmethod
    def from_settings(
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
    """The contents of one file."""

    version: int
    dataset: DatasetName
    test_text: TestText
    budgets: Annotated[list[Params], Meta(max_length=1000)]  # those asked for, ascending
    baselines: Annotated[list[Baseline], Meta(max_length=1000)]

    def __post_init__(self) -> None:
        check_version(self.version, VERSION)


DECODER = msgspec.json.Decoder(Baselines)


def baselines_dir(results_dir: str | Path) -> Path:
    return Path(results_dir) / "baselines"


def baselines_file(results_dir: str | Path, name: str, test_text: TestText) -> Path:
    """Returns the path of the file with the baselines of a test text.

    Args:
        results_dir: the folder of all results.
        name: the text's name, in a form that is safe in a file name.
        test_text: what is scored.
    """
    key = canonical_json([VERSION, msgspec.to_builtins(test_text)])
    number = hashlib.sha256(key.encode()).hexdigest()[:8]
    return baselines_dir(results_dir) / f"{name}-{test_text.layout}-{number}.json"


def read_baselines(file: Path) -> Baselines | None:
    """Reads a file of baselines; returns None if there is none.

    Raises:
        CorruptFileError: if the file exists but is not such a record.
    """
    return read_json(file, DECODER, MAX_BYTES)


def write_baselines(file: Path, baselines: Baselines) -> None:
    """Writes the baselines to their file; raises UserError if that fails."""
    write_json(file, msgspec.to_builtins(baselines))


def load_baselines(results_dir: str | Path) -> tuple[list[Baselines], list[str]]:
    """Reads all baselines of a results folder; returns them, and a line for each corrupt file."""
    found, complaints = [], []
    for file in sorted(baselines_dir(results_dir).glob("*.json")):
        try:
            if (baselines := read_baselines(file)) is not None:
                found.append(baselines)
        except CorruptFileError as error:
            complaints.append(f"{error}; left out")
    return found, complaints


def of_text(all_baselines: Iterable[Baselines], test_text: TestText) -> list[Baseline]:
    """Returns the baselines on one test text, each once, even if it has had several names; [] if
    there are none."""
    found = (
        baseline
        for baselines in all_baselines
        if baselines.test_text == test_text
        for baseline in baselines.baselines
    )
    return list(dict.fromkeys(found))
