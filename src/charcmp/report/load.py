"""The finished runs of a folder. What is corrupt is named and left out; nothing here is fatal."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charcmp.cells import CELLS
from charcmp.report.losses import LossSummary, read_losses
from charcmp.runs import CorruptFileError, RunFolder

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
    identity: dict[str, Any]
    train_nats_per_char: float
    val_nats_per_char: float
    test_nats_per_char: float
    losses: LossSummary | None


RESULT_FIELDS = [name for name in Run.__dataclass_fields__ if name != "losses"]
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
                    path, result["num_test_chars"], result["batch_size"], result["unroll_steps"]
                )
            except CorruptFileError as error:
                loaded.complaints.append(f"{error}; the run is shown without standard deviations")
        nats = {key: math.nan if result[key] is None else result[key] for key in NATS}
        loaded.runs.append(Run(**{key: result[key] for key in RESULT_FIELDS} | nats, losses=losses))
    return loaded


def check_result(result: dict[str, Any], file: Path) -> None:
    """CorruptFileError for a result that runs.read_result accepts but no table can hold."""
    if missing := [key for key in REPORT_KEYS if key not in result]:
        raise CorruptFileError(f"{file}: without {', '.join(missing)}")
    if result["cell"] not in CELLS:
        raise CorruptFileError(f"{file}: cell '{result['cell']}', unknown here")
    if result["status"] == "done":
        for key in NATS:
            if not isinstance(result[key], int | float) or not math.isfinite(result[key]):
                raise CorruptFileError(f"{file}: {key} is {result[key]}, not a finite number")
