"""race.json: what a race must remember so that it can go on after any interruption."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from charcmp.errors import UserError
from charcmp.runs.folder import RunFolder
from charcmp.runs.reading import (
    CorruptFileError,
    UnreadableFileError,
    check_version,
    read_json,
)

VERSION = 2
MAX_BYTES = 1 << 20


class State(Struct):
    """The state of a race, under way or over.

    Its decisions are not kept: they follow by the same rules from the runs, which are on disk. So a
    look at the finalists is never spent twice.
    """

    version: int
    text_sha256: str
    settings: dict[str, Any]  # what identifies the race: models, budget, seed, how runs are trained
    seconds_spent: Annotated[float, Meta(ge=0)] = 0.0  # of the time that it has been given
    # Updates of each rung.
    lengths: list[Annotated[int, Meta(ge=1)]] = msgspec.field(default_factory=list)
    seeds_begun: bool = False  # whether the finalists have begun to get further seeds

    def __post_init__(self) -> None:
        check_version(self.version, VERSION)


STATE = msgspec.json.Decoder(State)


class StateFile:
    """A race's state on disk, race.json in its folder, written at every change: its race.Track.

    Args:
        folder: the race's; this process holds its lease.
        text_sha256: of the text that the race is over.
        settings: what identifies the race.

    Raises:
        UserError: if the file exists, but is of a race over another text, or is not a race's.
        StorageError: if the disk or its server fails to deliver the file.
    """

    def __init__(self, folder: RunFolder, text_sha256: str, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.file = folder.path / "race.json"
        try:
            found = read_json(self.file, STATE, MAX_BYTES)
        except UnreadableFileError as error:
            raise error.storage_error from None
        except CorruptFileError as error:
            raise UserError(f"{error}; move it away to begin a new race") from None
        if found is not None and found.text_sha256 != text_sha256:
            raise UserError(
                f"{self.file}: the text has changed since this race began; to begin a new one, "
                "move its folder away, or give another text a name of its own with dataset.name="
            )
        self.is_new = found is None
        self.noted = time.monotonic()
        self.state = found or State(VERSION, text_sha256, settings)

    def length_of(self, rung: int, plan: Callable[[], int | None]) -> int | None:
        """See race.Track."""
        if rung == len(self.state.lengths):
            if (planned := plan()) is None:
                return None
            self.state.lengths.append(planned)
            self.write()
        return self.state.lengths[rung]

    def is_over(self, rung: int) -> bool:
        """See race.Track."""
        return self.state.seeds_begun or len(self.state.lengths) > rung + 1

    def seeds_begin(self) -> None:
        """See race.Track."""
        if not self.state.seeds_begun:
            self.state.seeds_begun = True
            self.write()

    def note_time(self) -> None:
        """Counts the time since the last note, or since the race was started again, as spent."""
        now = time.monotonic()
        self.state.seconds_spent += now - self.noted
        self.noted = now
        self.write()

    def write(self) -> None:
        self.folder.write_json(self.file, msgspec.to_builtins(self.state))
