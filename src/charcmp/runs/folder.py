"""A run on disk. A run's state is in its files and nowhere else: to know it, read the folder.

    results/runs/<run id>/
        config.yaml           the resolved configuration
        environment.json      versions, device, commit, corpus, command
        progress.json         which row it belongs to and how far it is, rewritten every second
        checkpoint.pt         all that resuming needs
        history.json          losses of every epoch
        best.safetensors      the weights with which the test loss was measured; `vocabulary` in its
                              metadata has the bytes for symbols 0, 1, ..., in hexadecimal
        test_nll.npy          nats of every test character, float32, stream after stream
        val_nll.npy           the same for the validation text, with the same weights
        result.json           written last: if it exists, the run is finished
        failure.json          why the last attempt ended without a result
        log.txt               what the run printed, if a sweep trained it
        owner                 host and process at work on it, with a heartbeat (lease.py)

This module does not import torch, so that tables and status can be made without it.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from charcmp.errors import BusyError, UserError, VanishedError
from charcmp.files import (
    as_json,
    is_there,
    remove_leftovers,
    try_folder,
    write_bytes,
    write_error,
)
from charcmp.runs import result as records
from charcmp.runs.lease import LEASE_SECONDS, Lease
from charcmp.runs.reading import CorruptFileError, UnreadableFileError, decode, read_json
from charcmp.runs.result import Failure, Progress, Result

# A carried state with an element above this has run away; memory cells that forget stay below about
# 100.
RUNAWAY = 1000.0
VOCABULARY_KEY = "vocabulary"  # missing in runs of earlier commits: see trained.py


class RunFolder:
    """The folder of one run.

    Args:
        path: the folder; need not exist.
        lease_seconds: seconds without a heartbeat after which its owner counts as dead.
    """

    def __init__(self, path: Path, lease_seconds: float = LEASE_SECONDS) -> None:
        self.path = path
        self.lease = Lease(path / "owner", lease_seconds)
        self.result = path / "result.json"
        self.checkpoint = path / "checkpoint.pt"
        self.history = path / "history.json"
        self.best = path / "best.safetensors"
        self.test_nll = path / "test_nll.npy"
        self.val_nll = path / "val_nll.npy"
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.progress = path / "progress.json"
        self.failure = path / "failure.json"
        self.log = path / "log.txt"

    def create(self) -> None:
        """Makes the folder; raises UserError if it cannot be written to."""
        try:
            try_folder(self.path)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}); results_dir=... chooses "
                "another folder"
            ) from None
        self._make_way()

    def _make_way(self) -> None:
        """Sets aside whatever has the name of one of the run's files but is not a regular file.

        Appending to a log that is a link would write elsewhere, and renaming a file onto a folder
        would fail when the training is over.
        """
        own = [value for value in vars(self).values() if isinstance(value, Path)]
        for file in {*own, self.lease.path} - {self.path}:
            with contextlib.suppress(OSError, UserError):  # writing to it will report the error
                if not stat.S_ISREG(file.lstat().st_mode):
                    aside = self.set_aside(file)
                    print(f"charcmp: {file}: not a file; kept as {aside.name}", file=sys.stderr)

    @contextmanager
    def leased(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Holds the run's lease for this process; see Lease.acquire for what it raises."""
        self.lease.acquire(should_stop)
        try:
            remove_leftovers(self.path)
            yield
        finally:
            self.lease.release()

    def write_bytes(self, file: Path, contents: bytes | memoryview, flush: bool = True) -> None:
        """Replaces a file of the run, completely or not at all.

        Raises:
            LostLeaseError: if this process held the run's lease and has lost it.
            UserError, StorageError: if the file cannot be written.
        """
        if self.lease.is_held:
            self.lease.check()
        write_bytes(file, contents, flush)

    def write_json(self, file: Path, value: Any, flush: bool = True) -> None:
        """Replaces a file by a value as JSON, indented if it is flushed; see `write_bytes`."""
        self.write_bytes(file, as_json(value, 2 if flush else None), flush)

    def write_npy(self, file: Path, array: NDArray[Any]) -> None:
        """Replaces a file by an array in NumPy's format; see `write_bytes`."""
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        self.write_bytes(file, buffer.getvalue())

    def write_result(self, result: Result) -> None:
        """Writes the result, which finishes the run; checks first that it can be read back.

        Raises:
            CorruptFileError: if it cannot; nothing is written then.
        """
        contents = as_json(msgspec.to_builtins(result))
        decode(self.result, contents, records.RESULT)
        self.write_bytes(self.result, contents)

    def read_result(self) -> Result | None:
        """Reads the result; returns None if there is none.

        Raises:
            CorruptFileError: if the file exists but is not a complete result.
        """
        return read_json(self.result, records.RESULT, records.MAX_RESULT_BYTES)

    def usable_result(self, say: Callable[[str], None] = print) -> Result | None:
        """Reads the result; sets it aside, and says so, if it is corrupt or another run's.

        Returns:
            The result; None if there is none or it was set aside.

        Raises:
            StorageError: if the disk or its server fails to deliver the file.
        """
        try:
            result = self.read_result()
            if result is not None and result.run_id != self.path.name:
                raise CorruptFileError(f"{self.result}: belongs to another run, {result.run_id}")
        except UnreadableFileError as error:
            raise error.storage_error from None
        except CorruptFileError as error:
            aside = self.set_aside(self.result)
            say(f"{error}; kept as {aside.name}; the run will be finished again")
            return None
        return result

    def set_aside(self, file: Path) -> Path:
        """Renames a file that cannot be used, so that it is kept; returns its new path."""
        number = 1
        while os.path.lexists(aside := file.with_name(f"{file.name}.bad-{number}")):
            number += 1
        try:
            file.replace(aside)
        except OSError as error:
            raise write_error(file, error) from None
        return aside

    def read_progress(self) -> Progress:
        """Reads the last progress note; returns an empty one if none can be read."""
        try:
            note = read_json(self.progress, records.PROGRESS, records.MAX_PROGRESS_BYTES)
        except CorruptFileError:  # the run's next note replaces it, a second later
            note = None
        return note or Progress()

    def write_progress(self, note: Progress) -> None:
        """Replaces the progress note, without flushing it to disk: losing one costs nothing.

        A sweep writes notes for its planned runs without holding their leases. A process that takes
        the lease at that moment removes unfinished files from the folder, this one included; the
        note is then dropped, since that process writes a newer one.
        """
        with contextlib.suppress(VanishedError):
            self.write_json(self.progress, msgspec.to_builtins(note), flush=False)

    def read_failure(self) -> Failure | None:
        """Reads why the last attempt ended without a result; returns None if no attempt failed."""
        try:
            return read_json(self.failure, records.FAILURE, records.MAX_FAILURE_BYTES)
        except CorruptFileError:
            return Failure("the recorded reason cannot be read")

    def failure_reason(self) -> str:
        """Returns one line that says why there is no result."""
        failure = self.read_failure() or Failure("no result and no reason recorded")
        return f"{failure.line} (log: {self.log})"

    def write_failure(
        self, reason: str, detail: str = "", retry: bool = False, is_users: bool = False
    ) -> None:
        """Records why there is no result.

        Args:
            reason: one line.
            detail: a traceback or the end of a log.
            retry: whether the next sweep may try again without --retry-failed.
            is_users: whether it is a mistake of the user's, which similar runs would repeat.
        """
        failure = Failure(reason, retry, is_users, detail, time.time())
        self.write_json(self.failure, msgspec.to_builtins(failure))

    def forget_failure(self) -> None:
        """Removes the record of an earlier failure, which would hide how the new attempt ends."""
        try:
            self.failure.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(self.failure, error) from None

    def record_death(self, reason: str, detail: str = "") -> None:
        """Records why a run ended whose process died before it could record that itself.

        Does nothing if the run has recorded a failure or a result, or another process is at work
        on it.
        """
        with contextlib.suppress(BusyError), self.leased():
            if self.read_failure() is None and not self.result.exists():
                self.write_failure(reason, detail)


def runs_dir(results_dir: str | Path) -> Path:
    return Path(results_dir) / "runs"


def run_folders(folder: Path) -> list[Path]:
    """Returns a folder's run folders, by name; none if it does not exist or cannot be read.

    Hidden ones, such as .ipynb_checkpoints, are not runs.
    """
    # Checked first, since glob raises an error for too long a name.
    found = folder.glob("*") if is_there(folder, stat.S_ISDIR) else ()
    visible = (path for path in found if not path.name.startswith("."))
    return sorted(path for path in visible if is_there(path, stat.S_ISDIR))
