"""Writes run folders as a training leaves them, with known losses, for the report's tests."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charcmp.models.budget import solve, target_params
from charcmp.models.cells.registry import CELLS
from charcmp.report.filters import Filters
from charcmp.report.load import load_runs
from charcmp.report.make import CONTENTS, make_report
from charcmp.report.tables import Entry, Table, make_tables
from helpers.models import shape

TEXTS = ("csv", "md", "tex")  # formats without figures, which take seconds
DRAWN_ONCE = (*TEXTS, "svg", "html")  # all but the PNGs, which repeat the SVGs
NUM_SYMBOLS = {"wp": 87, "lk": 101}
NUM_TEST_CHARS = 20_000
NOT_IN_AN_IDENTITY = {"dataset.name", "budget", "corpus_note"}


def losses(nats: float = 1.5, num_chars: int = NUM_TEST_CHARS, seed: int = 0) -> NDArray[Any]:
    """Returns losses of characters of a given mean, harder and easier by stretches as in a text."""
    rng = np.random.default_rng(seed)
    stretches = np.repeat(rng.gamma(4.0, 0.25, num_chars // 50), 50)
    nll = stretches * rng.gamma(1.0, 1.0, num_chars)
    return (nll * nats / nll.mean()).astype(np.float32)


def write_run(
    results_dir: Path,
    test_nats: float | None = 1.5,
    *,
    budget: str = "50k",
    nll: NDArray[Any] | None = None,
    extra: dict[str, Any] | None = None,  # further keys of the identity
    **changed: Any,
) -> Path:
    """Writes the folder of a finished run or, if `test_nats` is None, of one that diverged."""
    cell, layers = changed.get("cell", "lstm"), changed.get("layers", 1)
    dataset = changed.get("dataset", "wp")
    num_symbols = NUM_SYMBOLS.get(dataset, 80)
    target = target_params(budget, num_symbols)
    task = (extra or {}).get("task", "lm")
    sized = cell if cell in CELLS else "lstm"  # a class from outside charcmp
    solved = solve(shape(sized, layers, 1, num_symbols, task), target)
    hidden_size = changed.get("hidden_size") or solved.hidden_size
    result: dict[str, Any] = {
        "schema_version": 1,
        "protocol_version": 1,
        "status": "done" if test_nats is not None else "diverged",
        "task": task,
        "dataset": dataset,
        "corpus_sha256": f"{dataset:0<64}",
        "corpus_note": None,
        "num_symbols": num_symbols,
        "layout": "columns",
        "split": [90.0, 5.0, 5.0] if dataset == "lk" else [80.0, 10.0, 10.0],
        "cell": cell,
        "layers": layers,
        "budget": budget,
        "hidden_size": hidden_size,
        "num_params": shape(sized, layers, hidden_size, num_symbols, task).num_params,
        "target_params": target,
        "seed": 0,
        "dropout": 0.0,
        "precision": "float32",
        "epochs": 50,
        "unroll_steps": 100,
        "batch_size": 100,
        "best_epoch": 1,
        "train_nats_per_char": test_nats and test_nats - 0.1,
        "val_nats_per_char": test_nats and test_nats + 0.01,
        "test_nats_per_char": test_nats,
        "test_perplexity": test_nats and math.exp(test_nats),
        "test_bits_per_char": test_nats and test_nats / math.log(2),
        "num_test_chars": NUM_TEST_CHARS,
        "seconds_train": 1.0,
        "chars_per_second": 1,
        "device": "cpu",
        "git_commit": "c0ffee",
        "git_dirty": False,
        **changed,
    }
    result["identity"] = {
        "protocol_version": result["protocol_version"],
        "corpus_sha256": result["corpus_sha256"],
        "cell.name": cell,
        "layers": layers,
        "hidden_size": hidden_size,
        "seed": result["seed"],
        "dataset.layout": result["layout"],
        "dataset.split": result["split"],
        **(extra or {}),
    }
    told_apart = {key: result[key] for key in ("epochs", "dropout", "num_test_chars", "batch_size")}
    number = zlib.crc32(json.dumps([result["identity"], told_apart], sort_keys=True).encode())
    kind = cell if task == "lm" else f"{task}-{cell}"
    result["run_id"] = f"{dataset}-{kind}-{layers}x{hidden_size}-s{result['seed']}-{number:x}"
    folder = results_dir / "runs" / result["run_id"]
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    if nll is not None:
        np.save(folder / "test_nll.npy", nll)
    return folder


def tables_of(results_dir: Path, **axes: str) -> list[Table]:
    filters = Filters({axis.replace("__", "."): set(v.split(",")) for axis, v in axes.items()})
    return make_tables(load_runs(results_dir / "runs").runs, filters)


def only_entry(results_dir: Path) -> Entry:
    (table,) = tables_of(results_dir)
    (entry,) = table.entries.values()
    return entry


def report_files(folder: Path) -> dict[str, bytes]:
    """Returns every file of a report, figures included, by its path in it, but the list of them."""
    report = folder / "report"
    files = [file for file in report.rglob("*") if file.is_file() and file.name != CONTENTS]
    return {str(file.relative_to(report)): file.read_bytes() for file in files}


def add_records(folder: Path, epochs: int = 5, num_chars: int = 200_000) -> None:
    """Adds the learning curve and the environment that a training leaves, made up."""
    result = json.loads((folder / "result.json").read_text())
    end = result["val_nats_per_char"]
    history = [
        {"epoch": epoch, "lr": 0.002, "train_nats_per_char": end + 1 / epoch - 0.1,
         "val_nats_per_char": end + 0.9 / epoch, "seconds_train": 1.0 * epoch}
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    (folder / "history.json").write_text(json.dumps(history))
    command = f"charcmp train cell={result['cell']} layers={result['layers']}"
    environment = {"corpus": {"num_chars": num_chars}, "command": command}
    (folder / "environment.json").write_text(json.dumps(environment))


def paired_losses(nats: float, seed: int, num_chars: int = NUM_TEST_CHARS) -> NDArray[Any]:
    """Returns losses on a text that is hard in the same places for all models, plus own noise."""
    own = np.random.default_rng(1000 + seed).normal(0, 0.02, num_chars)
    nll = losses(1.5, num_chars) + 0.1 + own
    return (nll + nats - nll.mean()).astype(np.float32)


def write_grid(
    results_dir: Path,
    nats_of: dict[tuple[str, int], float],
    seeds: int = 3,
    sd: float = 0.001,
    **common: Any,
) -> list[Path]:
    """Writes a run with losses for each (cell, layers) and seed; seeds are evenly spaced by `sd`.

    Of three seeds, `sd` is also the standard deviation.
    """
    folders = []
    for number, ((cell, layers), nats) in enumerate(nats_of.items()):
        for seed in range(seeds):
            level = nats + sd * (seed - (seeds - 1) / 2)
            nll = paired_losses(level, seed + 100 * number)
            folders.append(
                write_run(
                    results_dir, level, cell=cell, layers=layers, seed=seed, nll=nll, **common
                )
            )
    return folders


def report_texts(results_dir: Path, filters: Filters | None = None) -> None:
    """Makes the report without figures and page."""
    make_report(results_dir, filters, formats=TEXTS, full=True)
