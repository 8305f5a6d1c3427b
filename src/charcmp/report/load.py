"""Loads the finished runs of a folder. Corrupt files are named and left out; none is fatal."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from charcmp.data.corpus import num_train_chars
from charcmp.models.cells.registry import CELLS
from charcmp.runs import result as records
from charcmp.runs.folder import RunFolder, run_folders
from charcmp.runs.reading import CorruptFileError
from charcmp.runs.result import Environment, Epoch, Result
from charcmp.uncertainty.losses import LossSummary, check_mean, num_series, read_losses

Found = TypeVar("Found")


class Run(Result, frozen=True, kw_only=True, eq=False):
    """A result, and what else is in the run's folder.

    Nats that do not exist because the run diverged are NaN.
    """

    train_nats_per_char: float
    val_nats_per_char: float
    test_nats_per_char: float
    losses: LossSummary | None
    history: list[Epoch] = msgspec.field(default_factory=list)  # [] if the run keeps none
    environment: Environment = Environment()
    folder: Path
    # The learning rate, if the identity leaves it out as the default of an optimiser other than
    # RMSProp; NaN: not known.
    default_rate: float = math.nan
    # Keys of the identity that distinguish this class from others of the same name, if any.
    told_apart_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Does nothing: the result was checked when it was read."""

    @property
    def variant(self) -> str:
        """The cell with its options that are not at their default: `lstm(forget_bias=1.0)`."""
        hidden = {"cell.name", *CLASS_KEYS} - {*self.told_apart_by}
        options = ", ".join(
            f"{key.removeprefix('cell.')}={_short(value)}"
            for key, value in sorted(self.identity.items())
            if key.startswith("cell.") and key not in hidden
        )
        return f"{self.cell}({options})" if options else self.cell


def _short(value: Any) -> Any:
    """Returns a hash by its first digits, anything else as it is."""
    is_hash = isinstance(value, str) and re.fullmatch(r"sha256 [0-9a-f]{64}", value)
    return value[: len("sha256 ") + 8] if is_hash else value


# Keys of a cell=module that tables show only to distinguish classes of the same name.
CLASS_KEYS = ("cell.origin", "cell.kind", "cell.states")
NATS = ("train_nats_per_char", "val_nats_per_char", "test_nats_per_char")


@dataclass
class Loaded:
    """The runs of a folder, and what was wrong with the others."""

    runs: list[Run] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)  # one line each
    num_unfinished: int = 0


def load_runs(folder: Path) -> Loaded:
    """Reads `<folder>/*/result.json`, in the order of the folders' names."""
    loaded = Loaded()
    where_from: dict[str, Path] = {}
    for path in run_folders(folder):
        try:
            if (result := RunFolder(path).read_result()) is None:
                loaded.num_unfinished += 1
                continue
            check_result(result, path / "result.json")
            if (other := where_from.setdefault(result.run_id, path)) != path:
                raise CorruptFileError(f"{path}: the same run as {other}")
        except CorruptFileError as error:
            loaded.complaints.append(f"{error}; left out")
            continue
        loaded.runs.append(_load_run(result, path, loaded.complaints))
    loaded.runs = _told_apart(_with_default_rates(loaded.runs, loaded.complaints))
    return loaded


def _told_apart(runs: list[Run]) -> list[Run]:
    """Returns the runs, with what distinguishes classes of one name, or from charcmp's cells."""
    labels = {info.label for info in CELLS.values()}
    seen: dict[tuple[str, str], set[Any]] = defaultdict(set)
    for run in runs:
        for key in CLASS_KEYS:
            seen[run.cell, key].add(run.identity.get(key))
    return [
        structs.replace(
            run,
            told_apart_by=tuple(
                key for key in CLASS_KEYS
                if len(seen[run.cell, key]) > 1 or (key == "cell.origin" and run.cell in labels)
            ),
        )
        if run.origin is not None else run
        for run in runs
    ]  # fmt: skip


def _with_default_rates(runs: list[Run], complaints: list[str]) -> list[Run]:
    """Returns the runs with the default learning rates that their identities leave out.

    A default changes only with the protocol's version, so one config.yaml of an optimiser has it
    for all its runs: reading YAML takes long.
    """
    defaults: dict[tuple[str, int], float] = {}
    for run in filter(_leaves_out_rate, runs):
        if math.isnan(defaults.get(_protocol(run), math.nan)):
            defaults[_protocol(run)] = _stored_rate(run, complaints)
    return [
        structs.replace(run, default_rate=defaults[_protocol(run)])
        if _leaves_out_rate(run)
        else run
        for run in runs
    ]


def _leaves_out_rate(run: Run) -> bool:
    return "optimizer.name" in run.identity and "optimizer.lr" not in run.identity


def _protocol(run: Run) -> tuple[str, int]:
    return str(run.identity["optimizer.name"]), run.protocol_version


def _stored_rate(run: Run, complaints: list[str]) -> float:
    """Returns the learning rate of a run's config.yaml, or NaN."""
    try:
        config = records.read_config(run.folder / "config.yaml")
    except CorruptFileError as error:
        complaints.append(f"{error}; the run is shown without its learning rate")
        return math.nan
    return math.nan if config is None or config.optimizer is None else config.optimizer.lr


def _load_run(result: Result, path: Path, complaints: list[str]) -> Run:
    """Returns a run with whatever of its other files can be used."""

    def found(read: Callable[[], Found], without: str) -> Found | None:
        try:
            return read()
        except CorruptFileError as error:
            complaints.append(f"{error}; the run is shown without {without}")
            return None

    losses = None
    if result.status == "done":
        losses = found(lambda: _losses(result, path), "standard deviations")
    history = found(lambda: records.read_history(path / "history.json"), "its learning curve")
    environment = found(lambda: records.read_environment(path / "environment.json"), "its command")
    values = structs.asdict(result)
    nats = {key: math.nan if values[key] is None else values[key] for key in NATS}
    return Run(
        **{**values, **nats},
        losses=losses,
        history=history or [],
        environment=environment or Environment(),
        folder=path,
    )


def _losses(result: Result, path: Path) -> LossSummary | None:
    """Returns the losses kept beside a finished run; CorruptFileError if they are not its own."""
    losses = read_losses(path, result.num_test_chars, num_series(result), result.unroll_steps)
    if losses is not None:
        assert result.test_nats_per_char is not None  # Result has checked it
        check_mean(losses, result.test_nats_per_char, path)
    return losses


def check_result(result: Result, file: Path) -> None:
    """Raises CorruptFileError for a result that no table here can hold."""
    if result.cell not in CELLS and result.origin is None:
        raise CorruptFileError(f"{file}: unknown cell '{result.cell}'")


def largest_state(run: Run) -> float:
    """Returns the largest element of the state that training carried after its last epoch.

    Returns 0 if the run does not record it.
    """
    return run.history[-1].largest_state if run.history else 0.0


def num_train_chars_of(run: Run) -> int | None:
    """Returns how many characters an epoch reads, or None if environment.json does not say."""
    if (found := _num_all_train_chars(run)) is None:
        return None
    updates = run.identity.get("updates_per_epoch")
    return min(found, updates * _chars_per_update(run)) if isinstance(updates, int) else found


def num_updates_of(run: Run) -> int | None:
    """Returns the updates of a training of full length, or None if environment.json does not say
    how long the text is."""
    num_chars = num_train_chars_of(run)
    return None if num_chars is None else run.epochs * (num_chars // _chars_per_update(run))


def epochs_read(run: Run) -> float:
    """Returns how often a training of full length reads the training text.

    These are the run's epochs, or less if they are cut short (updates_per_epoch) and
    environment.json says how long the text is.
    """
    num_chars, of_all = num_train_chars_of(run), _num_all_train_chars(run)
    return run.epochs * num_chars / of_all if num_chars and of_all else run.epochs


def _num_all_train_chars(run: Run) -> int | None:
    if (num_chars := run.environment.corpus.num_chars) is None:
        return None
    return num_train_chars(num_chars, run.layout, run.split, run.batch_size, run.unroll_steps)


def _chars_per_update(run: Run) -> int:
    batch, steps = (run.identity.get(f"train_{key}") for key in ("batch_size", "unroll_steps"))
    batch = batch if isinstance(batch, int) else run.batch_size
    steps = steps if isinstance(steps, int) else run.unroll_steps
    return max(1, batch * steps)
