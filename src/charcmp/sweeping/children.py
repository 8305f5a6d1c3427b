"""The sweep's side of its child processes: one for each run, or one for all lanes of a GPU."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import IO

from charcmp.errors import EXIT_AGAIN
from charcmp.files import write_error
from charcmp.sweeping.grid import Job
from charcmp.sweeping.lanes import Ending, Order
from charcmp.sweeping.slots import Slot
from charcmp.training.stop import PARENT_VARIABLE

ABORT_SECONDS = 5.0  # for a hung child to print where it hangs after SIGABRT


class Child(ABC):
    """A run at work in a slot."""

    process: subprocess.Popen[bytes]

    def __init__(self, job: Job, slot: Slot) -> None:
        self.job, self.slot = job, slot
        self.note: bytes | None = None  # its last progress note, and since when it says that
        self.note_since = time.monotonic()
        self.hung = False

    @abstractmethod
    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it is at work."""

    def watch(self, hang_seconds: float) -> None:
        """Ends it if its progress note has not changed for too long."""
        try:
            note = self.job.folder.progress.read_bytes()
        except OSError:
            note = None
        if note != self.note:
            self.note, self.note_since = note, time.monotonic()
        elif time.monotonic() - self.note_since > hang_seconds:
            self.hung = True
            self.process.send_signal(signal.SIGABRT)  # faulthandler prints where it hangs
            try:
                self.process.wait(ABORT_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class OwnProcess(Child):
    """A run by `charcmp train` in a process of its own."""

    def __init__(self, job: Job, slot: Slot, extra_args: Sequence[str]) -> None:
        super().__init__(job, slot)
        given = {override.split("=", 1)[0] for override in job.overrides} - {"device"}
        share = [f"{key}={value}" for key, value in slot.overrides.items() if key not in given]
        command = ["train", *extra_args, *job.overrides, *share, "progress=false"]
        try:
            log = job.folder.log.open("ab")
        except OSError as error:
            raise write_error(job.folder.log, error) from None
        with log:
            self.process = _start(command, slot.environment, stdout=log)

    def poll(self) -> int | None:
        return self.process.poll()


class InLane(Child):
    """A run in a lane of a process with others."""

    def __init__(self, job: Job, slot: Slot, lanes: LaneProcess, extra_args: Sequence[str]) -> None:
        super().__init__(job, slot)
        self.lanes, self.process = lanes, lanes.process
        self.order = Order(
            replace(
                job.spec.config,
                device="cpu" if slot.threads else "cuda",  # the one GPU that it sees
                threads=job.spec.config.threads or slot.threads,
                progress=False,
            ),
            job.folder.log.resolve(),
            shlex.join(["charcmp", "train", *extra_args, *job.overrides]),
            slot.lanes,
        )
        lanes.give(self.order)

    def poll(self) -> int | None:
        if (code := self.lanes.ending(self.order.log)) is not None:
            return code
        if (code := self.process.poll()) is None:
            return None
        self.lanes.tell_what_it_said(self.order.log)
        return code if self.hung else EXIT_AGAIN


class LaneProcess:
    """The process whose threads are the lanes of a GPU; see lanes.py."""

    def __init__(self, slot: Slot) -> None:
        self.here, there = Pipe()
        self.endings: dict[Path, int] = {}
        self.said = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {
            # By default the work of more than eight streams waits in line on the host's side.
            "CUDA_DEVICE_MAX_CONNECTIONS": "32",
            **slot.environment,
        }
        with there:
            fd = there.fileno()
            self.process = _start(["lanes", str(fd)], environment, self.said, pass_fds=(fd,))

    def give(self, order: Order) -> None:
        try:
            self.here.send(order)
        except OSError:
            self.process.wait()  # it has just ended: the run's next poll says so

    def ending(self, log: Path) -> int | None:
        """How the run with this log ended; None while it is at work."""
        try:
            while self.here.poll():
                ending = self.here.recv()
                assert isinstance(ending, Ending)
                self.endings[ending.log] = ending.code
        except (EOFError, OSError):
            pass  # it has ended, with what it sent before received
        return self.endings.pop(log, None)

    def tell_what_it_said(self, log: Path) -> None:
        """Adds the process's own last words to a run's log."""
        self.said.seek(0)
        with log.open("ab") as file:
            file.write(self.said.read())


def _start(
    command: Sequence[str],
    environment: dict[str, str],
    stdout: IO[bytes],
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """A child in a session of its own, so that Ctrl-C reaches only the parent; it watches for its
    parent's death itself."""
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-m", "charcmp", *command],
        stdout=stdout,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=pass_fds,
        env={**os.environ, **environment, PARENT_VARIABLE: str(os.getpid())},
    )
