"""The sweep's side of its child processes: one for each run, or one for all lanes of a GPU."""

from __future__ import annotations

import os
import shlex
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from charcmp.config.schema import Config
from charcmp.errors import EXIT_AGAIN, EXIT_BUSY
from charcmp.files import write_error
from charcmp.sweeping.grid import Job
from charcmp.sweeping.lanes import Ending, LaneOrder
from charcmp.sweeping.lanes import work as work_in_lanes
from charcmp.sweeping.processes import EXIT_UNKNOWN, start
from charcmp.sweeping.slots import LANE_ENVIRONMENT, Slot
from charcmp.training.attempt import attempt
from charcmp.training.session import Session
from charcmp.training.stop import StopRequest

ABORT_SECONDS = 5.0  # for a hung child to print where it hangs after SIGABRT


class Child(ABC):
    """A run that is being trained in a slot.

    Args:
        job: the run.
        slot: the share of the machine that it has.
    """

    process: BaseProcess

    def __init__(self, job: Job, slot: Slot) -> None:
        self.job, self.slot = job, slot
        self.config = replace(
            job.spec.config, threads=job.spec.config.threads or slot.threads, progress=False
        )
        self.note: bytes | None = None  # its last progress note
        self.note_since = time.monotonic()  # when that was first seen
        self.hung = False

    @property
    @abstractmethod
    def news(self) -> int | Connection:
        """The object for multiprocessing.connection.wait that becomes ready when the run ends."""

    @abstractmethod
    def poll(self) -> int | None:
        """Returns its exit status, negative for a signal; None while it is running."""

    def watch(self) -> None:
        """Ends it if its progress note has not changed for its `hang_seconds`."""
        try:
            note = self.job.folder.progress.read_bytes()
        except OSError:
            note = None
        if note != self.note:
            self.note, self.note_since = note, time.monotonic()
        elif time.monotonic() - self.note_since > self.config.hang_seconds:
            self.hung = True
            if self.process.pid is not None and self.process.is_alive():
                os.kill(self.process.pid, signal.SIGABRT)  # faulthandler prints where it hangs
            end(self.process, ABORT_SECONDS)


class OwnProcess(Child):
    """A run in a process of its own, as `charcmp train` does it.

    Args:
        job, slot: as of any child.
        extra_args: come before the overrides in the command that the run records.

    Raises:
        UserError, StorageError: if its log cannot be written.
    """

    def __init__(self, job: Job, slot: Slot, extra_args: Sequence[str]) -> None:
        super().__init__(job, slot)
        given = {override.split("=", 1)[0] for override in job.overrides} - {"device"}
        share = [f"{key}={value}" for key, value in slot.overrides.items() if key not in given]
        command = ["charcmp", "train", *extra_args, *job.overrides, *share, "progress=false"]
        config = replace(self.config, device="cuda") if slot.on_gpu else self.config
        try:
            job.folder.log.open("ab").close()
        except OSError as error:
            raise write_error(job.folder.log, error) from None
        self.process = start(
            train_alone,
            (config, shlex.join(command), job.spec.run_id),
            job.folder.log,
            slot.environment,
            # Forked processes have not been tried on a GPU.
            forked=not slot.on_gpu,
        )

    @property
    def news(self) -> int:
        return self.process.sentinel

    def poll(self) -> int | None:
        code = self.process.exitcode
        # If the server that it was forked from was killed, it may still be running. The pool then
        # looks at its lease again and again, as it does for any busy run.
        return EXIT_BUSY if code == EXIT_UNKNOWN else code


def train_alone(config: Config, command: str, planned_id: str) -> int:
    """Trains one run in a process of its own; returns the exit status."""
    return attempt(config, Session(StopRequest(), command=command), planned_id)


class InLane(Child):
    """A run in a lane of a process that other runs share.

    Args:
        job, slot: as of any child.
        lanes: the process, which is given the run here.
        extra_args: come before the overrides in the command that the run records.
    """

    def __init__(self, job: Job, slot: Slot, lanes: LaneProcess, extra_args: Sequence[str]) -> None:
        super().__init__(job, slot)
        self.lanes, self.process = lanes, lanes.process
        self.order = LaneOrder(
            replace(self.config, device="cpu" if slot.threads else "cuda"),  # it sees one GPU only
            job.spec.run_id,
            job.folder.log.resolve(),
            shlex.join(["charcmp", "train", *extra_args, *job.overrides]),
            slot.lanes,
        )
        lanes.give(self.order)

    @property
    def news(self) -> Connection:
        return self.lanes.here

    def poll(self) -> int | None:
        if (code := self.lanes.ending(self.order.log)) is not None:
            return code
        if (code := self.process.exitcode) is None:
            return None
        self.lanes.tell_what_it_said(self.order.log)
        return code if self.hung else EXIT_AGAIN


class LaneProcess:
    """The process whose threads are the lanes of a GPU; see lanes.py.

    Args:
        slot: one of the GPU's slots, for the environment that they share.
    """

    def __init__(self, slot: Slot) -> None:
        self.here, there = Pipe()
        self.endings: dict[Path, int] = {}
        self.said = tempfile.NamedTemporaryFile()  # noqa: SIM115
        environment = LANE_ENVIRONMENT | slot.environment
        with there:
            self.process = start(
                train_in_lanes, (there,), Path(self.said.name), environment, forked=False
            )

    def give(self, order: LaneOrder) -> None:
        """Has the process train a run, in a thread of its own."""
        try:
            self.here.send(order)
        except OSError:
            self.process.join()  # it has just ended; the run's next poll reports that

    def ending(self, log: Path) -> int | None:
        """Returns the exit status of the run with this log; None while it is running."""
        try:
            while self.here.poll():
                ending = self.here.recv()
                assert isinstance(ending, Ending)
                self.endings[ending.log] = ending.code
        except (EOFError, OSError):
            pass  # the process has ended; all that it sent before is received
        return self.endings.pop(log, None)

    def tell_what_it_said(self, log: Path) -> None:
        """Appends what the process itself printed to a run's log."""
        self.said.seek(0)
        with log.open("ab") as file:
            file.write(self.said.read())


def train_in_lanes(connection: Connection) -> int:
    """Trains runs in the lanes of a GPU; returns the process's exit status."""
    work_in_lanes(connection)
    return 0


def end(process: BaseProcess, seconds: float) -> None:
    """Waits until a process that was asked to end has done so; kills it if it takes too long."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
