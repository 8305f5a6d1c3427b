"""Runs in child processes of their own, as many at once as there are slots."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

from tqdm import tqdm

from charcmp.commands import EXIT_BUSY, EXIT_INTERRUPTED, EXIT_STORAGE, PARENT_VARIABLE
from charcmp.cost import estimate, longest_first
from charcmp.errors import Interrupted, StorageError
from charcmp.files import write_error
from charcmp.runs import RunFolder
from charcmp.slots import Slot, make_slots
from charcmp.sweep import Job

POLL_SECONDS = 0.2
STOP_SECONDS = 10.0  # for children to write a checkpoint after SIGTERM
ABORT_SECONDS = 5.0  # for a hung child to print where it hangs after SIGABRT
BUSY_SECONDS = 5.0  # before a run that another process is at work on is looked at again
LOG_LINES = 30


@dataclass
class Child:
    job: Job
    slot: Slot
    process: subprocess.Popen[bytes]
    note: bytes | None = None  # its last progress note, and since when it says that
    note_since: float = field(default_factory=time.monotonic)
    hung: bool = False


def run_processes(
    jobs: Sequence[Job], extra_args: Sequence[str] = (), fail_fast: bool = False
) -> None:
    """Runs every job by `charcmp train`; a job that fails leaves the others alone.

    Args:
        jobs: launched in the order of `longest_first`.
        extra_args: for every child, before its overrides.
        fail_fast: whether the first failure ends the others, too, with checkpoints.

    Raises:
        Interrupted: after SIGINT or SIGTERM, when all children have written their checkpoints.
        StorageError: when nothing can be written any more; children have ended.
    """
    Pool(jobs, extra_args, fail_fast).run()


class Pool:
    """The jobs of a sweep on this machine: waiting, running, over."""

    def __init__(self, jobs: Sequence[Job], extra_args: Sequence[str], fail_fast: bool) -> None:
        self.config = jobs[0].spec.config
        slots = make_slots(self.config)
        self.estimates = estimate(jobs, slots)
        self.free = deque(slots)
        self.num_jobs = len(jobs)
        self.waiting = deque(longest_first(jobs, self.estimates))
        self.not_before: dict[Job, float] = {}  # of jobs that another process was at work on
        self.running: list[Child] = []
        self.extra_args = extra_args
        self.fail_fast = fail_fast
        for job in self.waiting:
            if not job.fraction_done():  # for charcmp status; a run that began knows better
                left = {"seconds_left": self.estimates[job].seconds_left}
                job.folder.write_progress(job.folder.read_progress() | left)
        self.total = sum(estimate.seconds for estimate in self.estimates.values())
        self.done = 0.0  # seconds of the total
        self.num_done = self.num_failed = 0
        self.stop = False
        self.stop_reason: Interrupted | StorageError | None = None
        self.bar = tqdm(
            total=1.0,
            # What earlier attempts did counts as done, not as speed.
            initial=self._seconds_done(jobs) / self.total,
            bar_format="{percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left{postfix}",
            disable=not self.config.progress or None,
            mininterval=1.0,
        )

    def run(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._on_signal)
        try:
            while (self.waiting or self.running) and not self.stop:
                while self.free and (job := self._next_job()) is not None:
                    self._start(job)
                time.sleep(POLL_SECONDS)
                for child in list(self.running):
                    if child.process.poll() is None:
                        self._watch(child)
                    else:
                        self._reap(child)
                self._show()
        finally:
            self.bar.close()
            _stop_all([child.process for child in self.running])
        if self.stop_reason is not None:
            raise self.stop_reason

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        left = len(self.waiting) + len(self.running)
        self.stop_reason = Interrupted(f"sweep interrupted with {left} runs unfinished")
        self.stop = True

    def _next_job(self) -> Job | None:
        """Takes the first job that no other process is at work on: a second sweep, or what is left
        of one that was killed a moment ago."""
        for job in self.waiting:
            if time.monotonic() >= self.not_before.get(job, 0.0) and job.folder.lease.is_free():
                self.waiting.remove(job)
                return job
        return None

    def _start(self, job: Job) -> None:
        """Starts a child. It is in a session of its own, so that Ctrl-C reaches only the parent,
        and watches for its parent's death itself."""
        if job.folder.result.exists():  # by another sweep, meanwhile
            self.done += self.estimates[job].seconds
            self.num_done += 1
            return
        slot = self.free[0]
        given = {override.split("=", 1)[0] for override in job.overrides} - {"device"}
        share = [f"{key}={value}" for key, value in slot.overrides.items() if key not in given]
        command = [
            *(sys.executable, "-X", "faulthandler", "-m", "charcmp", "train"),
            *self.extra_args,
            *job.overrides,
            *share,
            "progress=false",
        ]
        job.folder.create()
        try:
            log = job.folder.log.open("ab")
        except OSError as error:
            raise write_error(job.folder.log, error) from None
        with log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **slot.environment, PARENT_VARIABLE: str(os.getpid())},
            )
        self.running.append(Child(job, self.free.popleft(), process))

    def _watch(self, child: Child) -> None:
        """Ends a child whose progress note has not changed for too long."""
        try:
            note = child.job.folder.progress.read_bytes()
        except OSError:
            note = None
        if note != child.note:
            child.note, child.note_since = note, time.monotonic()
        elif time.monotonic() - child.note_since > self.config.hang_seconds:
            child.hung = True
            child.process.send_signal(signal.SIGABRT)  # faulthandler prints where it hangs
            try:
                child.process.wait(ABORT_SECONDS)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

    def _reap(self, child: Child) -> None:
        """Draws the conclusion from a child that has ended."""
        self.running.remove(child)
        self.free.append(child.slot)
        name, folder = child.job.spec.run_id, child.job.folder
        code = child.process.returncode
        if code == EXIT_BUSY:
            self.not_before[child.job] = time.monotonic() + BUSY_SECONDS
            self.waiting.append(child.job)
        elif code == EXIT_STORAGE:
            self.stop_reason = storage_error(folder)
            self.stop = True
        elif code == EXIT_INTERRUPTED:  # asked to stop by somebody else than us
            self.num_failed += 1
            tqdm.write(f"{name}: interrupted")
        elif folder.result.exists():
            self.done += self.estimates[child.job].seconds
            self.num_done += 1
            tqdm.write(last_lines(folder, 1) or f"{name}: finished")
        else:
            self.done += self.estimates[child.job].seconds
            self.num_failed += 1
            folder.record_death(_reason(child), last_lines(folder, LOG_LINES))
            tqdm.write(f"{name}: failed: {folder.failure_reason()}")
            self.stop = self.stop or self.fail_fast

    def _show(self) -> None:
        unfinished = [*self.waiting, *(child.job for child in self.running)]
        self.bar.n = min(1.0, (self.done + self._seconds_done(unfinished)) / self.total)
        failed = f", {self.num_failed} failed" if self.num_failed else ""
        self.bar.set_postfix_str(
            f"{self.num_done}/{self.num_jobs} runs done, {len(self.running)} running{failed}"
        )

    def _seconds_done(self, jobs: Sequence[Job]) -> float:
        return sum(job.fraction_done() * self.estimates[job].seconds for job in jobs)


def _reason(child: Child) -> str:
    """How a child ended, in one line."""
    code = child.process.returncode
    if child.hung:
        seconds = child.job.spec.config.hang_seconds
        return f"hung: no progress for {seconds:g} s (hang_seconds=...), ended by the sweep"
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return last_lines(child.job.folder, 1) or f"exit status {code}"


def last_lines(folder: RunFolder, number: int) -> str:
    """The end of a run's log."""
    try:
        lines = folder.log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-number:])


def storage_error(folder: RunFolder) -> StorageError:
    """Why a child could not write, by trying it: where the disk is full, so is its log."""
    try:
        with tempfile.TemporaryFile(dir=folder.path) as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reason = error.strerror
    else:
        reason = "disk full or read-only a moment ago"
    return StorageError(
        f"{folder.path}: cannot be written ({reason}); earlier files are intact, the same command "
        "goes on when there is space"
    )


def _stop_all(running: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
