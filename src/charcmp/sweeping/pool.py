"""Trains the runs of a sweep in child processes, as many at once as there are slots."""

from __future__ import annotations

import math
import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

from charcmp.errors import (
    EXIT_AGAIN,
    EXIT_ALONE,
    EXIT_BUSY,
    EXIT_INTERRUPTED,
    EXIT_STORAGE,
    Interrupted,
    StorageError,
)
from charcmp.models.cells.compiled.dispatch import may_compile
from charcmp.output import counted
from charcmp.runs.folder import RunFolder
from charcmp.sweeping.children import Child, InLane, LaneProcess, OwnProcess, end
from charcmp.sweeping.cost import estimate_times, longest_first
from charcmp.sweeping.examine import examined_slots
from charcmp.sweeping.grid import Job
from charcmp.sweeping.processes import LOG_ENCODING, start_server
from charcmp.sweeping.progress import SweepProgress, note_estimates, queue, write_line
from charcmp.sweeping.slots import Slot
from charcmp.training.memory import training_bytes

POLL_SECONDS = 0.2
STOP_SECONDS = 10.0  # for children to write a checkpoint after SIGTERM
BUSY_SECONDS = 5.0  # until we look again at a run that another process is working on
LOG_LINES = 30


def run_processes(
    jobs: Sequence[Job],
    extra_args: Sequence[str] = (),
    fail_fast: bool = False,
    slots: Sequence[Slot] | None = None,
    until: float | None = None,
    on_end: Callable[[Job], None] | None = None,
    lanes: dict[str, LaneProcess] | None = None,
) -> None:
    """Trains every job as `charcmp train` does; a job that fails does not affect the others.

    Args:
        jobs: launched in the order of `longest_first`.
        extra_args: come before the overrides in the command that each run records.
        fail_fast: whether the first failure ends the other runs too, with checkpoints.
        slots: shares of the machine, already examined; None: those that the first job's
            configuration asks for.
        until: when to end the runs that are left, with checkpoints; by time.monotonic().
        on_end: called with every job that has ended, in place of lines and a bar on the terminal.
        lanes: by GPU, the processes of its lanes: those in it are used, and new ones are left in it
            for the next call, which saves their start; None: they end with this call.

    Raises:
        Interrupted: after SIGINT or SIGTERM, when all children have written their checkpoints.
        StorageError: if nothing can be written any more; all children have ended by then.
    """
    config = jobs[0].spec.config
    if config.device in ("auto", "cpu"):  # the server imports torch while we look for a GPU
        start_server(
            compiled=any(
                may_compile(job.spec.config.cell.name, job.spec.values_per_chunk) for job in jobs
            )
        )
    slots = slots or examined_slots(config, max(training_bytes(job.spec) for job in jobs))
    queue(jobs)  # not before it is known that they can run here
    Pool(jobs, slots, extra_args, fail_fast, until, on_end, lanes).run()


class Pool:
    """The jobs of a sweep on this machine: waiting, running or ended.

    The arguments are those of `run_processes`; here there must be slots.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        slots: Sequence[Slot],
        extra_args: Sequence[str],
        fail_fast: bool,
        until: float | None,
        on_end: Callable[[Job], None] | None,
        lanes: dict[str, LaneProcess] | None,
    ) -> None:
        self.until = math.inf if until is None else until
        self.on_end = on_end
        self.config = jobs[0].spec.config
        estimates = estimate_times(jobs, slots)
        note_estimates(estimates)
        self.free = deque(slots)
        self.waiting = deque(longest_first(jobs, estimates))
        self.not_before: dict[Job, float] = {}  # when to retry jobs that were busy elsewhere
        self.again: set[Job] = set()  # jobs whose shared process has failed once
        self.alone: set[Job] = set()  # jobs that failed while sharing a process
        self.running: list[Child] = []
        self.lanes: dict[str, LaneProcess] = {} if lanes is None else lanes
        self.keeps_lanes = lanes is not None
        self.extra_args = extra_args
        self.fail_fast = fail_fast
        self.stop = False
        self.stop_reason: Interrupted | StorageError | None = None
        self.progress = SweepProgress(jobs, estimates, self.config.progress and on_end is None)

    def run(self) -> None:
        """Trains all jobs; raises what `run_processes` does."""
        handlers = {
            signum: signal.signal(signum, self._on_signal)
            for signum in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            while (self.waiting or self.running) and not self.stop:
                while self.free and (job := self._next_job()) is not None:
                    self._start(job)
                wait({child.news for child in self.running}, POLL_SECONDS)
                for child in list(self.running):
                    if (code := child.poll()) is None:
                        child.watch()
                    else:
                        self._reap(child, code)
                self.progress.show(self.waiting, [child.job for child in self.running])
                self.stop = self.stop or time.monotonic() >= self.until
        finally:
            self.progress.close()
            _stop_all([child.process for child in self.running])
            if self.running or not self.keeps_lanes:
                end_lanes(self.lanes)
            for signum, handler in handlers.items():
                signal.signal(signum, handler)
        if self.stop_reason is not None:
            raise self.stop_reason

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        left = len(self.waiting) + len(self.running)
        self.stop_reason = Interrupted(f"interrupted with {counted(left, 'run')} unfinished")
        self.stop = True

    def _next_job(self) -> Job | None:
        """Takes the first job that may start in the first free slot, if there is one.

        It may if no other process is working on it, and a job that is to be alone if nothing else
        runs on the slot's GPU. The other process may belong to a second sweep, or to one that was
        killed a moment ago.
        """
        beside = [child for child in self.running if child.slot.gpu == self.free[0].gpu]
        if any(child.job in self.alone for child in beside):
            return None
        for job in self.waiting:
            if job in self.alone and beside:
                continue
            if time.monotonic() >= self.not_before.get(job, 0.0) and job.folder.lease.is_free():
                self.waiting.remove(job)
                return job
        return None

    def _start(self, job: Job) -> None:
        """Starts a run in the first free slot."""
        if job.folder.result.exists():  # another sweep has finished it in the meantime
            self.progress.ended(job)
            if self.on_end is not None:
                self.on_end(job)
            return
        job.folder.create()
        slot = self.free[0]
        child: Child
        # The precision of a GPU's products is set for a whole process.
        is_odd = job.spec.config.precision != self.config.precision
        if job in self.alone and (lanes := self.lanes.pop(slot.gpu, None)) is not None:
            end_lanes({slot.gpu: lanes})  # it would keep the memory that its runs had
        if slot.lanes == 1 or is_odd or job in self.alone:
            child = OwnProcess(job, slot, self.extra_args)
        else:
            child = InLane(job, slot, self._lanes(slot), self.extra_args)
        self.running.append(child)
        self.free.popleft()

    def _lanes(self, slot: Slot) -> LaneProcess:
        """Returns the process of a slot's lanes, which all slots of a GPU share."""
        lanes = self.lanes.get(slot.gpu)
        if lanes is None or not lanes.process.is_alive():
            lanes = self.lanes[slot.gpu] = LaneProcess(slot)
        return lanes

    def _reap(self, child: Child, code: int) -> None:
        """Handles a run that has ended: queues it again, or counts it as done or failed."""
        self.running.remove(child)
        self.free.append(child.slot)
        name, folder = child.job.spec.run_id, child.job.folder
        tell = write_line if self.on_end is None else _hush
        if code == EXIT_BUSY:
            self.not_before[child.job] = time.monotonic() + BUSY_SECONDS
            self.waiting.append(child.job)
        elif code == EXIT_AGAIN and child.job not in self.again:
            tell(f"{name}: its shared process failed; continuing in another")
            self.again.add(child.job)
            self.waiting.appendleft(child.job)
        elif code in (EXIT_ALONE, EXIT_AGAIN) and child.job not in self.alone:
            tell(f"{name}: failed while sharing a GPU; it will continue alone")
            self.alone.add(child.job)
            self.waiting.append(child.job)  # last, when the others no longer need the GPU
        elif code == EXIT_STORAGE:
            self.stop_reason = storage_error(folder)
            self.stop = True
        elif code == EXIT_INTERRUPTED:  # somebody other than this sweep asked it to stop
            self.progress.ended(child.job, is_finished=False)
            tell(f"{name}: interrupted")
        elif folder.result.exists():
            self.progress.ended(child.job)
            tell(last_lines(folder, 1) or f"{name}: finished")
        else:
            self.progress.ended(child.job, is_finished=False)
            folder.record_death(_reason(child, code), last_lines(folder, LOG_LINES))
            tell(f"{name}: failed: {folder.failure_reason()}")
            self.stop = self.stop or self.fail_fast
        if self.on_end is not None and child.job not in self.waiting:
            self.on_end(child.job)


def _hush(line: str) -> None:
    pass


def _reason(child: Child, code: int) -> str:
    """Returns in one line why a run failed."""
    if child.hung:
        seconds = child.job.spec.config.hang_seconds
        return f"hung: no progress for {seconds:g} s (hang_seconds=...), ended by the sweep"
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return last_lines(child.job.folder, 1) or f"exit status {code}"


def last_lines(folder: RunFolder, number: int) -> str:
    """Returns the last lines of a run's log, "" if it cannot be read."""
    try:
        lines = folder.log.read_text(LOG_ENCODING, "replace").strip().splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-number:])


def storage_error(folder: RunFolder) -> StorageError:
    """Returns why a child could not write or read, found by trying: a full disk takes no log."""
    try:
        with tempfile.TemporaryFile(dir=folder.path) as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        trouble = f"cannot be written ({error.strerror})"
    else:
        trouble = "could not be written or read a moment ago"
    return StorageError(
        f"{folder.path}: {trouble}; existing files are intact, and the same command continues once "
        "this is fixed"
    )


def end_lanes(lanes: dict[str, LaneProcess]) -> None:
    """Ends the processes of lanes, with checkpoints of what they train; leaves none."""
    _stop_all([each.process for each in lanes.values()])
    lanes.clear()


def _stop_all(running: Sequence[BaseProcess]) -> None:
    for process in running:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in running:
        end(process, max(0.0, deadline - time.monotonic()))
