"""The finished runs of a folder. What is corrupt is named and left out; nothing here is fatal."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charcmp.cells import CELLS
from charcmp.corpus import num_train_chars
from charcmp.report.losses import LossSummary, num_series, read_losses
from charcmp.runs import CorruptFileError, RunFolder, task_of

REPORT_KEYS = ("identity", "num_symbols", "split", "batch_size", "unroll_steps", "corpus_note")


@dataclass(frozen=True)
class Run:
    """A result.json, and the summary of the single losses where the run has them.

    Nats that do not exist, because the run diverged, are NaN.
    """

    run_id: str
    status: str  # done | diverged
    dataset: str
    corpus_sha256: str
    corpus_note: str | None
    num_symbols: int
    layout: str
    split: list[float]  # percent
    cell: str
    layers: int
    budget: str
    target_params: int
    hidden_size: int
    num_params: int
    seed: int
    dropout: float
    protocol_version: int
    precision: str
    epochs: int
    batch_size: int
    unroll_steps: int
    num_test_chars: int
    seconds_train: float
    chars_per_second: float
    seconds_per_sampled_char: float | None  # None in runs of before it was recorded
    device: str
    best_epoch: int | None
    identity: dict[str, Any]
    train_nats_per_char: float
    val_nats_per_char: float
    test_nats_per_char: float
    losses: LossSummary | None
    folder: Path

    @property
    def task(self) -> str:
        """lm | fill: never in one table."""
        return task_of({"identity": self.identity})

    @property
    def variant(self) -> str:
        """The cell with its options that are not at their default: `lstm(forget_bias=1.0)`."""
        options = ", ".join(
            f"{key.removeprefix('cell.')}={value}"
            for key, value in sorted(self.identity.items())
            if key.startswith("cell.") and key != "cell.name"
        )
        return f"{self.cell}({options})" if options else self.cell


RESULT_FIELDS = [name for name in Run.__dataclass_fields__ if name not in ("losses", "folder")]
WHOLE = (
    *("num_symbols", "layers", "target_params", "hidden_size", "num_params", "seed"),
    *("protocol_version", "epochs", "batch_size", "unroll_steps", "num_test_chars"),
)
NATS = [name for name in RESULT_FIELDS if name.endswith("nats_per_char")]


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
    for path in sorted(path for path in folder.glob("*") if path.is_dir()):
        try:
            if (result := RunFolder(path).read_result()) is None:
                loaded.num_unfinished += 1
                continue
            check_result(result, path / "result.json")
            if (other := where_from.setdefault(result["run_id"], path)) != path:
                raise CorruptFileError(f"{path}: the same run as {other}")
        except CorruptFileError as error:
            loaded.complaints.append(f"{error}; left out")
            continue
        losses = None
        if result["status"] == "done":
            try:
                losses = read_losses(
                    path, result["num_test_chars"], num_series(result), result["unroll_steps"]
                )
            except CorruptFileError as error:
                loaded.complaints.append(f"{error}; the run is shown without standard deviations")
        nats = {key: math.nan if result[key] is None else result[key] for key in NATS}
        values = {key: result.get(key) for key in RESULT_FIELDS} | nats
        loaded.runs.append(Run(**values, losses=losses, folder=path))
    return loaded


def check_result(result: dict[str, Any], file: Path) -> None:
    """CorruptFileError for a result that runs.read_result accepts but no table can hold."""
    if missing := [key for key in REPORT_KEYS if key not in result]:
        raise CorruptFileError(f"{file}: without {', '.join(missing)}")
    for key in WHOLE:
        if not isinstance(result[key], int) or result[key] < 0:
            raise CorruptFileError(f"{file}: {key} is {result[key]!r}, not a whole number")
    for key, kind in {"identity": dict, "split": list, "dropout": float | int}.items():
        if not isinstance(result[key], kind):
            raise CorruptFileError(f"{file}: {key} is {result[key]!r}")
    sampling = result.get("seconds_per_sampled_char")
    if sampling is not None and not (isinstance(sampling, int | float) and sampling > 0):
        raise CorruptFileError(f"{file}: seconds_per_sampled_char is {sampling!r}")
    if result["cell"] not in CELLS:
        raise CorruptFileError(f"{file}: cell '{result['cell']}', unknown here")
    if result["status"] == "done":
        for key in NATS:
            if not isinstance(result[key], int | float) or not math.isfinite(result[key]):
                raise CorruptFileError(f"{file}: {key} is {result[key]}, not a finite number")


def read_history(run: Run) -> list[dict[str, float]]:
    """Losses by epoch; [] where the run keeps none.

    Raises:
        CorruptFileError: if the file is there but is not that.
    """
    file = run.folder / "history.json"
    keys = ("epoch", "train_nats_per_char", "val_nats_per_char")
    try:
        history = json.loads(file.read_text())
        return [{key: float(entry[key]) for key in keys} for entry in history]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(f"{file}: not the losses of epochs ({error})") from None


def largest_state(run: Run) -> float:
    """The largest element of the state that training carried, after its last epoch; 0 where the run
    does not say."""
    try:
        return float(json.loads((run.folder / "history.json").read_text())[-1]["largest_state"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return 0.0


def read_environment(run: Run) -> dict[str, Any]:
    """What environment.json says of the machine, the corpus and the command; {} where it cannot."""
    try:
        environment = json.loads((run.folder / "environment.json").read_text())
    except (OSError, ValueError):
        return {}
    return environment if isinstance(environment, dict) else {}


def num_train_chars_of(run: Run) -> int | None:
    """Characters that the run was trained on; None where its environment.json does not tell."""
    num_chars = read_environment(run).get("corpus", {}).get("num_chars")
    if not isinstance(num_chars, int):
        return None
    return num_train_chars(num_chars, run.layout, run.split, run.batch_size, run.unroll_steps)
