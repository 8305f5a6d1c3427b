"""`charcmp status`: what every run of a results folder is doing, read from its files alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tabulate import tabulate

from charcmp.errors import UserError
from charcmp.runs import CorruptFileError, RunFolder, runs_dir

# Finished runs last: what goes on or went wrong is what one looks for.
STATES = ("running", "failed", "interrupted", "corrupt", "waiting", "diverged", "done")


def run_status(folder: RunFolder) -> dict[str, Any]:
    """State of one run and, as far as it got, epoch, speed, time left and losses (nats/char)."""
    note = folder.read_progress()
    status: dict[str, Any] = {
        "run_id": folder.path.name,
        "state": "waiting",
        "epoch": None,
        "epochs": note.get("epochs"),
        "chars_per_second": None,
        "seconds_left": None,
        "val_nats_per_char": note.get("best_val_nats_per_char"),
        "test_nats_per_char": None,
        "reason": None,
    }
    if isinstance(note.get("epoch"), int) and isinstance(note.get("epochs"), int):
        status["epoch"] = min(note["epoch"], note["epochs"])
    try:
        result = folder.read_result()
    except CorruptFileError as error:
        return status | {"state": "corrupt", "reason": str(error)}
    if result is not None:
        return status | {
            "state": result["status"],
            "epoch": result.get("epochs_trained", result["epochs"]),  # fewer with patience
            "epochs": result["epochs"],
            "chars_per_second": result["chars_per_second"],
            "val_nats_per_char": result["val_nats_per_char"],
            "test_nats_per_char": result["test_nats_per_char"],
        }
    if folder.is_locked():
        return status | _speed(note) | {"state": "running"}
    if folder.failure.exists():
        return status | {"state": "failed", "reason": folder.failure_reason()}
    if folder.checkpoint.exists():
        return status | {"state": "interrupted"}
    return status


def _speed(note: dict[str, Any]) -> dict[str, Any]:
    speed, seconds = note.get("chars_per_second"), note.get("seconds_left")
    return {
        "chars_per_second": round(speed) if isinstance(speed, int | float) else None,
        "seconds_left": round(seconds) if isinstance(seconds, int | float) else None,
    }


def print_status(results_dir: str, as_json: bool) -> None:
    """Prints a line per run, the unfinished first, and a count of each state.

    Raises:
        UserError: if there is no run.
    """
    folder = runs_dir(results_dir)
    paths = sorted(path for path in folder.glob("*") if path.is_dir())
    if not paths:
        raise UserError(f"{folder}: no runs; charcmp sweep or charcmp train starts some")
    runs = [run_status(RunFolder(Path(path))) for path in paths]
    runs.sort(key=lambda run: STATES.index(run["state"]))
    if as_json:
        print(json.dumps(runs, indent=2))
        return
    print(tabulate([_printed(run) for run in runs], headers="keys", disable_numparse=True))
    counts = Counter(run["state"] for run in runs)
    print(f"{len(runs)} runs: " + ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s]))


def _printed(run: dict[str, Any]) -> dict[str, str]:
    def number(key: str, form: str) -> str:
        value = run[key]
        return format(value, form) if isinstance(value, int | float) else ""

    minutes = None if run["seconds_left"] is None else run["seconds_left"] / 60
    return {
        "run": run["run_id"],
        "state": run["state"],
        "epoch": f"{run['epoch']}/{run['epochs']}" if run["epoch"] is not None else "",
        "chars/s": number("chars_per_second", ","),
        "left": "" if minutes is None else f"{minutes:.0f} min",
        "val": number("val_nats_per_char", ".3f"),
        "test": number("test_nats_per_char", ".3f"),
        "": (run["reason"] or "")[:80],
    }
