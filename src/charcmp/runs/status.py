"""What a run is doing, read from its files alone."""

from __future__ import annotations

from typing import Any

from charcmp.runs.folder import RunFolder
from charcmp.runs.result import CorruptFileError, printable

# Finished runs last: what goes on or went wrong is what one looks for.
STATES = ("running", "failed", "interrupted", "corrupt", "waiting", "diverged", "done")
ROW_KEYS = ("dataset", "task", "budget", "cell", "layers", "hidden_size", "seed")


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
        keys = (*ROW_KEYS, "epochs", "val_nats_per_char", "test_nats_per_char")
        trained = result.epochs_trained  # fewer with patience
        return status | {
            **{key: getattr(result, key) for key in keys},
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


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
