"""What a run is doing, read from its files alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from charcmp.files import is_there
from charcmp.runs.folder import RunFolder
from charcmp.runs.result import CorruptFileError, printable

# In the order in which they are shown: finished runs last, since users look for the others.
STATES = ("running", "failed", "interrupted", "corrupt", "waiting", "diverged", "done")
ROW_KEYS = ("dataset", "task", "budget", "cell", "layers", "hidden_size", "seed")


@dataclass(frozen=True)
class RunStatus:
    """A run's state, with its epoch, speed, time left and losses (nats per character) so far.

    Unknown values are None. The fields are those of `charcmp status --json`.
    """

    run_id: str
    state: str  # one of STATES
    dataset: str | None = None
    task: str | None = None
    budget: str | None = None
    cell: str | None = None
    layers: int | None = None
    hidden_size: int | None = None
    seed: int | None = None
    epoch: int | None = None  # the current one; for a finished run, how many it trained
    epochs: int | None = None
    chars_per_second: int | None = None
    seconds_left: int | None = None
    val_nats_per_char: float | None = None  # the best so far
    test_nats_per_char: float | None = None
    owner: str | None = None  # `host:process`
    reason: str | None = None  # what went wrong, or may have


def run_status(folder: RunFolder) -> RunStatus:
    """Reads what a run is doing from its folder."""
    note = folder.read_progress()
    status = RunStatus(
        run_id=printable(folder.path.name),
        state="waiting",
        **{key: _shown(getattr(note, key)) for key in ROW_KEYS},
        epochs=note.epochs,
        seconds_left=_whole(note.seconds_left),
        val_nats_per_char=note.best_val_nats_per_char,
    )
    if note.epoch is not None and note.epochs is not None:
        status = replace(status, epoch=min(note.epoch, note.epochs))
    try:
        result = folder.read_result()
    except CorruptFileError as error:
        return replace(status, state="corrupt", reason=str(error))
    if result is not None:
        keys = (*ROW_KEYS, "epochs", "val_nats_per_char", "test_nats_per_char")
        trained = result.epochs_trained  # fewer with patience
        return replace(
            status,
            **{key: getattr(result, key) for key in keys},
            chars_per_second=_whole(result.chars_per_second),
            state=result.status,
            epoch=result.epochs if trained is None else trained,
            seconds_left=0,
        )
    if not folder.lease.is_free():
        owner = folder.lease.owner()
        if folder.lease.is_owner_dead():  # we may not write here, or is_free() would be true
            reason = f"its owner {owner} is dead"
            return replace(status, state="interrupted", owner=owner, reason=reason)
        # The stamp comes from another host's or a file server's clock: grounds for doubt, no proof.
        silent = folder.lease.seconds_since_heartbeat() or 0.0
        doubt = f"owner {owner} may be dead: no heartbeat for {silent:.0f} s, if the clocks agree"
        return replace(
            status,
            state="running",
            owner=owner,
            chars_per_second=_whole(note.chars_per_second),
            reason=doubt if silent > folder.lease.longest_silence() else None,
        )
    if (failure := folder.read_failure()) is not None:
        return replace(status, state="failed", reason=failure.line)
    if is_there(folder.checkpoint):
        return replace(status, state="interrupted")
    return status


def _shown(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
