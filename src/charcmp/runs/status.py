"""`charcmp status`: what every run of a results folder is doing, read from its files alone."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tabulate import tabulate

from charcmp.errors import UserError
from charcmp.runs.folder import RunFolder, runs_dir
from charcmp.runs.result import CorruptFileError, printable

# Finished runs last: what goes on or went wrong is what one looks for.
STATES = ("running", "failed", "interrupted", "corrupt", "waiting", "diverged", "done")
ROW_KEYS = ("dataset", "task", "budget", "cell", "layers", "hidden_size", "seed")
WATCH_SECONDS = 2.0
# Between two runs of a sweep nothing runs while a process starts: on a busy machine or a slow disk
# not for seconds. With no run left to start, it is over.
QUIET_SECONDS, QUIET_SECONDS_AT_THE_END = 120.0, 5.0


def run_status(folder: RunFolder) -> dict[str, Any]:
    """State of one run and, as far as it got, epoch, speed, time left and losses (nats/char)."""
    note = folder.read_progress()
    status: dict[str, Any] = {
        "run_id": printable(folder.path.name),
        "state": "waiting",
        **{key: _shown(getattr(note, key)) for key in ROW_KEYS},
        "epoch": None,
        "epochs": note.epochs,
        "chars_per_second": None,
        "seconds_left": _whole(note.seconds_left),
        "val_nats_per_char": note.best_val_nats_per_char,
        "test_nats_per_char": None,
        "owner": None,
        "reason": None,
    }
    if note.epoch is not None and note.epochs is not None:
        status["epoch"] = min(note.epoch, note.epochs)
    try:
        result = folder.read_result()
    except CorruptFileError as error:
        return status | {"state": "corrupt", "reason": str(error)}
    if result is not None:
        told = (*ROW_KEYS, "epochs", "val_nats_per_char", "test_nats_per_char")
        trained = result.epochs_trained  # fewer with patience
        return status | {
            **{key: getattr(result, key) for key in told},
            "chars_per_second": _whole(result.chars_per_second),
            "state": result.status,
            "epoch": result.epochs if trained is None else trained,
            "seconds_left": 0,
        }
    if not folder.lease.is_free():
        owner = folder.lease.owner()
        silent = folder.lease.seconds_since_heartbeat() or 0.0
        if silent > folder.lease.seconds:
            reason = f"its owner {owner} has been silent for {silent:.0f} s"
            return status | {"state": "interrupted", "owner": owner, "reason": reason}
        speed = _whole(note.chars_per_second)
        return status | {"state": "running", "owner": owner, "chars_per_second": speed}
    if (failure := folder.read_failure()) is not None:
        return status | {"state": "failed", "reason": failure.line}
    if folder.checkpoint.exists():
        return status | {"state": "interrupted"}
    return status


def _shown(value: str | int | None) -> str | int | None:
    return printable(value) if isinstance(value, str) else value


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


class Wanted(Protocol):
    """Which runs somebody asks for; its text names them, for a message."""

    def admits_status(self, run: Mapping[str, Any], /) -> bool: ...


class Runs:
    """The runs of a results folder, or some of them, looked at once or again and again.

    Raises:
        UserError: at a look, if there is no run, or none of those that are asked for.
    """

    def __init__(
        self, results_dir: str, lease_seconds: float, filters: Wanted | None = None
    ) -> None:
        self.path = runs_dir(results_dir)
        self.filters = filters
        self.lease_seconds = lease_seconds
        self.folders: dict[str, RunFolder] = {}  # kept: a lease shows its age to who keeps looking

    def look(self) -> list[dict[str, Any]]:
        """The state of every run, the unfinished first."""
        for path in sorted(path for path in self.path.glob("*") if path.is_dir()):
            self.folders.setdefault(path.name, RunFolder(path, self.lease_seconds))
        if not self.folders:
            raise UserError(f"{self.path}: no runs; charcmp sweep or charcmp train starts some")
        runs = [run_status(folder) for folder in self.folders.values()]
        if self.filters is not None:
            runs = [run for run in runs if self.filters.admits_status(run)]
            if not runs:
                raise UserError(f"none of the {len(self.folders)} runs is one of {self.filters}")
        return sorted(runs, key=lambda run: (STATES.index(run["state"]), run["run_id"]))


def print_status(
    results_dir: str, lease_seconds: float, as_json: bool, filters: Wanted | None = None
) -> None:
    """Prints a line per run that is admitted, the best of each row, and how much is left."""
    runs = Runs(results_dir, lease_seconds, filters).look()
    print(json.dumps(runs, indent=2) if as_json else overview(runs))


def watch_status(
    results_dir: str,
    lease_seconds: float,
    as_json: bool = False,
    filters: Wanted | None = None,
) -> None:
    """Shows the status until nothing has been running for some seconds: a table that renews itself
    in a terminal, elsewhere a line for each run whose state has changed; as JSON, such a line."""
    folder = Runs(results_dir, lease_seconds, filters)
    is_table = sys.stdout.isatty() and not as_json
    shown: dict[str, str] = {}
    last_running = time.monotonic()
    quiet = QUIET_SECONDS
    while time.monotonic() - last_running < quiet:
        runs = folder.look()
        if is_table:
            print("\033[H\033[2J" + overview(runs), flush=True)
        for run in runs:
            if not is_table and shown.get(run["run_id"]) != run["state"]:
                words = " ".join(word for word in _printed(run).values() if word)
                line = json.dumps(run) if as_json else f"{time.strftime('%H:%M:%S')} {words}"
                print(line, flush=True)
            shown[run["run_id"]] = run["state"]
        if any(run["state"] == "running" for run in runs):
            last_running = time.monotonic()
        is_left = any(run["state"] in ("running", "waiting") for run in runs)
        quiet = QUIET_SECONDS if is_left else QUIET_SECONDS_AT_THE_END
        time.sleep(WATCH_SECONDS)


def overview(runs: Sequence[dict[str, Any]]) -> str:
    """The whole status as text."""
    counts = Counter(run["state"] for run in runs)
    lines = [
        tabulate([_printed(run) for run in runs], headers="keys", disable_numparse=True),
        *_best_of_rows(runs),
        f"{len(runs)} runs: " + ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s]),
    ]
    left = [run["seconds_left"] for run in runs if run["state"] in ("running", "waiting")]
    if counts["running"] and None not in left:
        seconds = sum(left) / counts["running"]
        lines.append(f"about {duration(seconds)} left, {counts['running']} at once")
    return "\n".join(lines)


def _best_of_rows(runs: Sequence[dict[str, Any]]) -> list[str]:
    """For each row of the tables, the model with the lowest validation loss so far."""
    best: dict[tuple[str, ...], dict[str, Any]] = {}
    for run in runs:
        what = "fill-in" if run["task"] == "fill" else ""  # notes of earlier versions have none
        row = (str(run["dataset"]), str(run["budget"]), what)
        val = run["val_nats_per_char"]
        if val is not None and run["dataset"] is not None:
            best[row] = min(best.get(row, run), run, key=lambda run: run["val_nats_per_char"])
    return [
        f"best so far, {' '.join(filter(None, row))}: {run['cell']} x {run['layers']}, validation "
        f"{run['val_nats_per_char']:.3f}"
        + (f" after epoch {run['epoch']}" if run["state"] == "running" else "")
        for row, run in sorted(best.items())
    ]


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _printed(run: dict[str, Any]) -> dict[str, str]:
    def number(key: str, form: str) -> str:
        value = run[key]
        return format(value, form) if isinstance(value, int | float) else ""

    going = run["state"] == "running" and run["seconds_left"] is not None
    return {
        "run": run["run_id"],
        "state": run["state"],
        "epoch": f"{run['epoch']}/{run['epochs']}" if run["epoch"] is not None else "",
        "chars/s": number("chars_per_second", ","),
        "left": duration(run["seconds_left"]) if going else "",
        "val": number("val_nats_per_char", ".3f"),
        "test": number("test_nats_per_char", ".3f"),
        "": (run["reason"] or "")[:80],
    }
