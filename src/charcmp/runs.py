"""A run on disk. The files are the truth: whoever wants a run's state reads its folder.

    results/runs/<run id>/
        config.yaml           the resolved configuration
        environment.json      versions, device, commit, corpus, command
        progress.json         where a running run is, rewritten every second
        checkpoint.pt         all that resuming needs
        history.json          losses of every epoch
        best.safetensors      the weights that the test loss is of; in its metadata `vocabulary`,
                              the bytes that symbols 0, 1, ... stand for, in hexadecimal
        test_nll.npy          nats of every test character, float32, row by row
        result.json           written last: the run is finished
        failure.json          why the last attempt ended without a result

No torch here, so that tables and status can be made without it.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import filelock
import numpy as np
from numpy.typing import NDArray

from charcmp.errors import BusyError, UserError

SCHEMA_VERSION = 1
REQUIRED_KEYS = (
    *("schema_version", "protocol_version", "status", "run_id", "dataset", "corpus_sha256"),
    *("layout", "cell", "layers", "budget", "hidden_size", "num_params", "target_params", "seed"),
    *("dropout", "precision", "epochs", "best_epoch", "train_nats_per_char", "val_nats_per_char"),
    *("test_nats_per_char", "test_perplexity", "test_bits_per_char", "num_test_chars"),
    *("seconds_train", "chars_per_second", "device"),
)
VOCABULARY_KEY = "vocabulary"  # runs of earlier versions have none: see trained.py
LOCK_WAIT_SECONDS = 10.0  # a child of a killed sweep needs about one second to notice and let go


class CorruptFileError(ValueError):
    """A file of a run is there but cannot be what it should be."""


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.result = path / "result.json"
        self.checkpoint = path / "checkpoint.pt"
        self.history = path / "history.json"
        self.best = path / "best.safetensors"
        self.test_nll = path / "test_nll.npy"
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.progress = path / "progress.json"
        self.failure = path / "failure.json"
        self.log = path / "log.txt"

    def create(self) -> None:
        """Makes the folder; UserError if the results folder cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}); results_dir=... chooses "
                "another folder"
            ) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for this process; the system lets go of it if the process dies."""
        lock = filelock.FileLock(self.path / "lock", timeout=LOCK_WAIT_SECONDS)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise BusyError(f"{self.path.name}: another process is training this run") from None
        try:
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Whether some process is at work on the run."""
        if not self.path.is_dir():
            return False
        lock = filelock.FileLock(self.path / "lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            return True
        except OSError:
            return False  # a folder we may not write: nobody here works on it
        lock.release()
        return False

    def read_result(self) -> dict[str, Any] | None:
        """The result, None where there is none.

        Raises:
            CorruptFileError: if the file is there but is no complete result.
        """
        return read_result(self.result)

    def set_aside(self, file: Path) -> Path:
        """Renames a file that cannot be used; nothing is deleted."""
        number = 1
        while (aside := file.with_name(f"{file.name}.bad-{number}")).exists():
            number += 1
        file.replace(aside)
        return aside

    def read_progress(self) -> dict[str, Any]:
        """The last progress note, {} where there is none."""
        try:
            note = json.loads(self.progress.read_text())
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def write_progress(self, note: dict[str, Any]) -> None:
        """Replaces the progress note; not flushed, since a lost one costs nothing."""
        write_atomically(
            self.progress, lambda file: file.write(json.dumps(note).encode()), flush=False
        )

    def failure_reason(self) -> str:
        """Why the last attempt ended without a result, in one line."""
        try:
            failure = json.loads(self.failure.read_text())
            return f"{failure['reason']} (log: {self.log})"
        except (OSError, ValueError, KeyError, TypeError):
            return f"no result and no reason recorded (log: {self.log})"

    def write_failure(self, reason: str, detail: str = "") -> None:
        write_json(self.failure, {"reason": reason, "detail": detail, "time": time.time()})


def read_result(path: Path) -> dict[str, Any] | None:
    """Reads and checks a result.json.

    Raises:
        CorruptFileError: if it is there but not a complete result of this schema.
    """
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{path}: {error}") from None
    try:
        result = json.loads(text)
    except ValueError:
        raise CorruptFileError(f"{path}: not valid JSON") from None
    if not isinstance(result, dict):
        raise CorruptFileError(f"{path}: not a JSON object")
    if missing := [key for key in REQUIRED_KEYS if key not in result]:
        raise CorruptFileError(f"{path}: without {', '.join(missing)}")
    if result["schema_version"] != SCHEMA_VERSION:
        raise CorruptFileError(
            f"{path}: schema version {result['schema_version']}, but {SCHEMA_VERSION} is read here"
        )
    if result["status"] not in ("done", "diverged"):
        raise CorruptFileError(f"{path}: status '{result['status']}'")
    return result


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any], flush: bool = True) -> None:
    """Writes beside, flushes to disk, renames: the file is the old one or the new one, never half.

    Raises:
        UserError: if the disk is full or the folder not writable; the old file is intact.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            write(file)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
        if flush:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); earlier files are intact"
        ) from None


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_npy(path: Path, array: NDArray[Any]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, lambda file: file.write(buffer.getvalue()))


def runs_dir(results_dir: str | Path) -> Path:
    return Path(results_dir) / "runs"
