"""A run on disk. The files are the truth: whoever wants a run's state reads its folder.

    results/runs/<run id>/
        config.yaml           the resolved configuration
        environment.json      versions, device, commit, corpus, command
        progress.json         which row it counts in and how far it is, rewritten every second
        checkpoint.pt         all that resuming needs
        history.json          losses of every epoch
        best.safetensors      the weights that the test loss is of; in its metadata `vocabulary`,
                              the bytes that symbols 0, 1, ... stand for, in hexadecimal
        test_nll.npy          nats of every test character, float32, row by row
        result.json           written last: the run is finished
        failure.json          why the last attempt ended without a result
        log.txt               what a run of a sweep printed
        owner                 host and process at work on it, with a heartbeat (lease.py)

No torch here, so that tables and status can be made without it.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from charcmp.errors import BusyError, UserError
from charcmp.files import SAFE_NAME, remove_leftovers, write_atomically
from charcmp.lease import LEASE_SECONDS, Lease

SCHEMA_VERSION = 1
REQUIRED_KEYS = (
    *("schema_version", "protocol_version", "status", "run_id", "dataset", "corpus_sha256"),
    *("layout", "cell", "layers", "budget", "hidden_size", "num_params", "target_params", "seed"),
    *("dropout", "precision", "epochs", "best_epoch", "train_nats_per_char", "val_nats_per_char"),
    *("test_nats_per_char", "test_perplexity", "test_bits_per_char", "num_test_chars"),
    *("seconds_train", "chars_per_second", "device"),
)
# Of the largest element of a state: memory cells that forget stay below a hundred, beyond this some
# only count.
RUNAWAY = 1000.0
VOCABULARY_KEY = "vocabulary"  # runs of earlier versions have none: see trained.py


class CorruptFileError(ValueError):
    """A file of a run is there but cannot be what it should be."""


class RunFolder:
    """The folder of one run.

    Args:
        path: the folder; need not exist.
        lease_seconds: after how long without a heartbeat its owner counts as dead.
    """

    def __init__(self, path: Path, lease_seconds: float = LEASE_SECONDS) -> None:
        self.path = path
        self.lease = Lease(path / "owner", lease_seconds)
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
    def leased(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Holds the run for this process; see Lease.acquire for what it raises."""
        self.lease.acquire(should_stop)
        try:
            remove_leftovers(self.path)
            yield
        finally:
            self.lease.release()

    def write(self, file: Path, write: Callable[[IO[bytes]], Any], flush: bool = True) -> None:
        """Replaces a file of the run: whole or not at all.

        Raises:
            LostLeaseError: if this process held the run and holds it no longer.
            UserError, StorageError: if it cannot be written.
        """
        if self.lease.is_held:
            self.lease.check()
        write_atomically(file, write, flush)

    def write_json(self, file: Path, value: Any, flush: bool = True) -> None:
        text = json.dumps(value, indent=2 if flush else None, allow_nan=False) + "\n"
        self.write(file, lambda opened: opened.write(text.encode()), flush)

    def write_npy(self, file: Path, array: NDArray[Any]) -> None:
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        self.write(file, lambda opened: opened.write(buffer.getvalue()))

    def read_result(self) -> dict[str, Any] | None:
        """The result, None where there is none.

        Raises:
            CorruptFileError: if the file is there but is no complete result.
        """
        return read_result(self.result)

    def usable_result(self, say: Callable[[str], None] = print) -> dict[str, Any] | None:
        """The result; one that is corrupt or another run's is told of and set aside."""
        try:
            result = self.read_result()
            if result is not None and result["run_id"] != self.path.name:
                raise CorruptFileError(f"{self.result}: of another run, {result['run_id']}")
        except CorruptFileError as error:
            aside = self.set_aside(self.result)
            say(f"{error}; kept as {aside.name}, the run is finished again")
            return None
        return result

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
        self.write_json(self.progress, note, flush=False)

    def read_failure(self) -> dict[str, Any] | None:
        """Why the last attempt ended without a result; None where no attempt failed."""
        try:
            failure = json.loads(self.failure.read_text())
            reason = printable(str(failure["reason"]))
            return {"reason": reason, "retry": bool(failure.get("retry"))}
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return {"reason": "no reason that can be read", "retry": False}

    def failure_reason(self) -> str:
        """The same, in one line."""
        failure = self.read_failure() or {"reason": "no result and no reason recorded"}
        return f"{failure['reason']} (log: {self.log})"

    def write_failure(self, reason: str, detail: str = "", retry: bool = False) -> None:
        """Records why there is no result.

        Args:
            reason: one line.
            detail: a traceback or the end of a log.
            retry: whether the next sweep may try again unasked: what failed cost nothing.
        """
        self.write_json(
            self.failure,
            {"reason": reason, "detail": detail, "retry": retry, "time": time.time()},
        )

    def record_death(self, reason: str, detail: str = "") -> None:
        """Records, from outside, why a run ended that could not do so itself; not if it could,
        nor if somebody has taken it up again."""
        with contextlib.suppress(BusyError), self.leased():
            if self.read_failure() is None and not self.result.exists():
                self.write_failure(reason, detail)


def printable(text: str) -> str:
    """Text of a stranger's file, without what could steer a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


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
        raise CorruptFileError(f"{path}: status {result['status']!r}")
    # What names a file or is shown in a terminal, in whosever run: no path, nothing that steers.
    if (steering := next((t for t in _texts(result) if not t.isprintable()), None)) is not None:
        raise CorruptFileError(f"{path}: with control characters: {steering!r}")
    if not isinstance(result["dataset"], str) or not result["dataset"]:
        raise CorruptFileError(f"{path}: dataset {result['dataset']!r}")
    for key in ("run_id", "cell", "budget"):
        if not isinstance(result[key], str) or not SAFE_NAME.fullmatch(result[key]):
            raise CorruptFileError(f"{path}: {key} {result[key]!r}")
    return result


def task_of(result: dict[str, Any]) -> str:
    """What a result's model was trained to do, a key of budget.NUM_STACKS.

    Language models' identities do not say: it is the default.
    """
    identity = result.get("identity")
    return "fill" if isinstance(identity, dict) and identity.get("task") == "fill" else "lm"


def _texts(value: Any) -> Iterator[str]:
    """Every text inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(part)


def runs_dir(results_dir: str | Path) -> Path:
    return Path(results_dir) / "runs"
