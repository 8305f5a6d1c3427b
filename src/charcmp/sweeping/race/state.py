"""race.json: what a race must remember to go on after any end, as if there had been none."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from charcmp.errors import UserError
from charcmp.files import write_json
from charcmp.runs.result import CorruptFileError, read_json

VERSION = 2
MAX_BYTES = 1 << 20


class State(Struct):
    """A race under way or over.

    What it decided is not kept: the decisions follow from the runs, which are on disk, by the same
    rules. So a look at the finalists is never spent twice.
    """

    version: int
    text_sha256: str
    settings: dict[str, Any]  # that make it this race: models, budget, seed, how runs are trained
    seconds_spent: Annotated[float, Meta(ge=0)] = 0.0  # of the time that it was given so far
    # Updates of each rung.
    lengths: list[Annotated[int, Meta(ge=1)]] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"version {self.version}, but {VERSION} is read here")


STATE = msgspec.json.Decoder(State)


class StateFile:
    """A race's state on disk, written at every change.

    Raises:
        UserError: if the file is there but is that of a race over another text, or of none.
    """

    def __init__(self, file: Path, text_sha256: str, settings: dict[str, Any]) -> None:
        self.file = file
        try:
            found = read_json(file, STATE, MAX_BYTES)
        except CorruptFileError as error:
            raise UserError(f"{error}; move it away to begin a new race") from None
        if found is not None and found.text_sha256 != text_sha256:
            raise UserError(
                f"{file}: the text has changed since this race began; to begin a new one, move its "
                "folder away or name another results_dir="
            )
        self.is_new = found is None
        self.noted = time.monotonic()
        self.state = found or State(VERSION, text_sha256, settings)

    def length_of(self, rung: int, plan: Callable[[], int]) -> int:
        """A rung's updates: as it was begun with, else as planned now."""
        if rung == len(self.state.lengths):
            self.state.lengths.append(plan())
            self.write()
        return self.state.lengths[rung]

    def note_time(self) -> None:
        """Counts the time since the last note, or since the race was taken up, as spent."""
        now = time.monotonic()
        self.state.seconds_spent += now - self.noted
        self.noted = now
        self.write()

    def write(self) -> None:
        write_json(self.file, msgspec.to_builtins(self.state))
