"""The records that are read back from a run's folder. They are checked here and nowhere else.

Each file has a record type, a largest size, and a decoder; `reading.py` has the functions that read
files with these.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta, Struct

from charcmp.files import SAFE_NAME
from charcmp.models.budget import MAX_HIDDEN_SIZE, Shape
from charcmp.models.cells.registry import CELLS, cell_config
from charcmp.runs.reading import (
    MAX_MESSAGE,
    CorruptFileError,
    as_record,
    check_version,
    printable,
    read_file,
    read_json,
)

SCHEMA_VERSION = 1

# Largest size of each file, in bytes. Real ones are far smaller: a result has 2 KB, an epoch 250
# bytes.
MAX_RESULT_BYTES = 1 << 20
MAX_HISTORY_BYTES = 1 << 26
MAX_ENVIRONMENT_BYTES = 1 << 24
MAX_FAILURE_BYTES = 1 << 22
MAX_PROGRESS_BYTES = 1 << 16
MAX_SPEEDS_BYTES = 1 << 24
MAX_CONFIG_BYTES = 1 << 16  # PyYAML needs half a second for this much

MAX_NATS = 700.0  # exp() of it is still a float

MAX_RUN_ID = 200  # characters

Name = Annotated[str, Meta(max_length=MAX_RUN_ID, pattern=rf"\A{SAFE_NAME.pattern}\Z")]
Text = Annotated[str, Meta(max_length=1000)]
# Without a slash: it names a text file, which is looked for in the data folders.
DatasetName = Annotated[str, Meta(max_length=1000, pattern=r"\A[^/\0]+\Z")]
Count = Annotated[int, Meta(ge=1, le=1 << 40)]
Whole = Annotated[int, Meta(ge=0, le=1 << 40)]
NonNegative = Annotated[float, Meta(ge=0)]
Nats = Annotated[float, Meta(ge=0, le=MAX_NATS)]
Percent = Annotated[float, Meta(ge=0, le=100)]
# Budgets stay below what the solver can meet with any cell (budget.MAX_HIDDEN_SIZE).
Params = Annotated[int, Meta(ge=1, le=10**12)]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9A-Za-z_.-]{64}\Z")]
Layout = Literal["columns", "contiguous"]
Split = Annotated[list[Percent], Meta(min_length=3, max_length=3)]
Scalar = str | int | float | bool | None


class Result(Struct, frozen=True, kw_only=True):
    """A result.json, which a finished run has. Losses that do not exist are None."""

    schema_version: int
    protocol_version: Annotated[int, Meta(ge=1, le=1_000_000)]
    status: Literal["done", "diverged"]
    run_id: Name
    task: Literal["lm", "fill"] = "lm"  # a key of budget.NUM_STACKS; older results lack it: lm
    dataset: DatasetName
    corpus_sha256: Sha256
    corpus_note: Text | None
    num_symbols: Annotated[int, Meta(ge=1, le=256)]
    layout: Layout
    split: Split
    cell: Name
    layers: Annotated[int, Meta(ge=1, le=1000)]
    budget: Name
    hidden_size: Annotated[int, Meta(ge=1, le=MAX_HIDDEN_SIZE)]
    num_params: Annotated[int, Meta(ge=1, le=1 << 53)]
    target_params: Params
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    dropout: Annotated[float, Meta(ge=0, lt=1)]
    precision: Literal["float32", "tf32", "bf16"]  # bf16: only in runs of earlier commits
    epochs: Count
    patience: Count | None = None
    epochs_trained: Whole | None = None  # may be fewer than epochs; older runs lack it
    batch_size: Count
    unroll_steps: Count
    identity: Annotated[
        dict[Annotated[str, Meta(max_length=100)], Scalar | list[Scalar]], Meta(max_length=100)
    ]
    best_epoch: Count | None
    train_nats_per_char: Nats | None
    val_nats_per_char: Nats | None
    test_nats_per_char: Nats | None
    test_perplexity: NonNegative | None
    test_bits_per_char: NonNegative | None
    num_test_chars: Count
    seconds_train: NonNegative
    chars_per_second: NonNegative  # since the run was last started; 0: not known
    seconds_per_sampled_char: Annotated[float, Meta(gt=0)] | None = None  # None: not measured
    device: Annotated[str, Meta(pattern=r"\A(cpu|cuda)(:[0-9]{1,4})?\Z")]
    device_name: Text | None = None
    verified: bool | None = None  # on a GPU: whether its numbers were checked (training/verify.py)
    git_commit: Annotated[str, Meta(max_length=100, pattern=r"\A[0-9a-z]*\Z")] | None = None
    git_dirty: bool | None = None

    def __post_init__(self) -> None:
        """Checks what concerns several keys; msgspec turns a ValueError into a ValidationError."""
        check_version(self.schema_version, SCHEMA_VERSION, "schema version")
        # These are shown in terminals.
        for text in _texts([self.dataset, self.corpus_note, self.identity]):
            if not text.isprintable() or len(text) > 1000:
                raise ValueError(f"with control characters or too long: {text[:100]!r}")
        self._check_identity()
        self._check_losses()
        if (
            self.origin is None
            and self.cell in CELLS
            and self.num_params != (count := self.shape.num_params)
        ):
            raise ValueError(f"num_params is {self.num_params}, but such a model has {count}")

    @property
    def origin(self) -> str | None:
        """Where the class of a `cell=module` comes from; None for charcmp's own cells."""
        origin = self.identity.get("cell.origin")
        return None if origin is None else str(origin)

    @property
    def shape(self) -> Shape:
        """The model's shape; the cell's options are at their defaults, as they change no count."""
        cell = cell_config(self.cell)
        return Shape(cell, self.layers, self.hidden_size, self.num_symbols, self.task)

    def _check_identity(self) -> None:
        said = {
            "protocol_version": self.protocol_version,
            "corpus_sha256": self.corpus_sha256,
            "cell.name": self.cell,
            "layers": self.layers,
            "hidden_size": self.hidden_size,
            "seed": self.seed,
            "dataset.layout": self.layout,
            "dataset.split": self.split,
        }
        for key, value in said.items():
            if self.identity.get(key) != value:
                raise ValueError(f"identity: {key} is {self.identity.get(key)!r}, not {value!r}")
        if self.identity.get("task", "lm") != self.task:  # its default is left out of identities
            raise ValueError(f"identity: task is {self.identity.get('task')!r}, not {self.task!r}")
        if self.task == "fill":
            context = self.identity.get("fill_context")
            if type(context) is not int or not 1 <= context <= self.unroll_steps:
                raise ValueError(f"fill_context is {context!r}")

    def _check_losses(self) -> None:
        if self.status == "diverged":
            return
        for key in (
            *("best_epoch", "train_nats_per_char", "val_nats_per_char", "test_nats_per_char"),
            *("test_perplexity", "test_bits_per_char"),
        ):
            if getattr(self, key) is None:
                raise ValueError(f"{key} is null, though the run did not diverge")


class Epoch(Struct, frozen=True, kw_only=True):
    """One entry of history.json, and of the history in a checkpoint."""

    epoch: Count
    lr: NonNegative | None = None  # of the epoch's last update
    train_nats_per_char: Nats
    val_nats_per_char: Nats
    largest_state: NonNegative = 0.0  # largest |element| of the carried state; 0 in older runs
    seconds_train: NonNegative | None = None  # of this epoch and those before it


class CorpusRecord(Struct, frozen=True):
    """What readers need of the corpus in an environment.json."""

    num_chars: Count | None = None


class Environment(Struct, frozen=True):
    """What readers need of an environment.json."""

    device: str | None = None
    device_name: str | None = None
    threads: Whole | None = None
    lanes: Count = 1
    corpus: CorpusRecord = CorpusRecord()
    command: Annotated[str, Meta(max_length=1 << 20)] = ""
    working_dir: Annotated[str, Meta(pattern=r"\A[^\0]+\Z")] | None = None


class Progress(Struct, frozen=True, omit_defaults=True):
    """A progress.json: which row the run belongs to and how far it is."""

    dataset: Text | None = None
    task: Text | None = None
    budget: Text | None = None
    cell: Text | None = None
    layers: Whole | None = None
    hidden_size: Whole | None = None
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | None = None
    epoch: Whole | None = None
    epochs: Whole | None = None
    fraction: Annotated[float, Meta(ge=0, le=1)] | None = None
    chars_per_second: NonNegative | None = None
    seconds_left: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    best_val_nats_per_char: Nats | None = None
    time: float | None = None


class Failure(Struct, frozen=True):
    """A failure.json: why the last attempt ended without a result."""

    reason: str
    retry: bool = False  # whether the next sweep may try again without --retry-failed
    is_users: bool = False  # a mistake of the user's, which similar runs would repeat
    detail: str = ""  # a traceback, or the end of a log
    time: float = 0.0

    @property
    def line(self) -> str:
        """The reason, safe to show in a terminal."""
        return printable(self.reason[:MAX_MESSAGE])


class StoredDataset(Struct, frozen=True):
    """What a config.yaml says about the corpus that helps to find it again."""

    # "paper" is what earlier commits called "download".
    source: Literal["download", "paper", "file", "pydocs", "pysrc"]
    name: DatasetName | None = None
    path: Annotated[str, Meta(pattern=r"\A[^\0]+\Z")] | None = None


class StoredOptimizer(Struct, frozen=True):
    """What readers need of a config.yaml's optimiser."""

    lr: Annotated[float, Meta(gt=0)]


class StoredConfig(Struct, frozen=True):
    """What readers need of a config.yaml."""

    cell: dict[str, Scalar | dict[str, Scalar | list[Scalar]]]
    dataset: StoredDataset | None = None
    data_dir: Annotated[str, Meta(pattern=r"\A[^\0]+\Z")] | None = None
    optimizer: StoredOptimizer | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.cell.get("name"), str):
            raise ValueError("cell: without a name")


RESULT = msgspec.json.Decoder(Result)
HISTORY = msgspec.json.Decoder(Annotated[list[Epoch], Meta(max_length=1_000_000)])
ENVIRONMENT = msgspec.json.Decoder(Environment)
EARLIER = msgspec.json.Decoder(dict[str, Any])  # a whole environment.json, to keep all its keys
PROGRESS = msgspec.json.Decoder(Progress)
FAILURE = msgspec.json.Decoder(Failure)
SPEEDS = msgspec.json.Decoder(dict[str, Annotated[float, Meta(gt=0)]])  # in a results folder


def read_history(file: Path) -> list[Epoch]:
    """Reads a history.json, which has the epochs 1, 2, ... in order; returns [] without a file."""
    history = read_json(file, HISTORY, MAX_HISTORY_BYTES) or []
    if any(entry.epoch != number for number, entry in enumerate(history, start=1)):
        raise CorruptFileError(f"{file}: not epochs 1, 2, ... in order")
    return history


def read_environment(file: Path) -> Environment:
    """Reads an environment.json; returns an empty record if there is none."""
    return read_json(file, ENVIRONMENT, MAX_ENVIRONMENT_BYTES) or Environment()


def read_config(file: Path) -> StoredConfig | None:
    """Reads a config.yaml; returns None if there is none.

    Raises:
        CorruptFileError: if the file exists but is not a run's configuration.
    """
    if (contents := read_file(file, MAX_CONFIG_BYTES)) is None:
        return None
    try:
        loaded = yaml.safe_load(contents)
    except Exception as error:  # PyYAML's constructors raise many kinds, also RecursionError
        raise CorruptFileError(f"{file}: unreadable ({type(error).__name__})") from None
    return as_record(loaded, StoredConfig, file, "not the configuration of a run")


def _texts(value: Any) -> Iterator[str]:
    """Yields every text inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(part)
