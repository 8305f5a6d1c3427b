"""Trains a race's runs on this machine: ordinary runs, in the same processes as a sweep's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from charcmp.config.spec import split_of
from charcmp.errors import UserError
from charcmp.report.losses import num_series, read_nll, summarize
from charcmp.runs.result import CorruptFileError
from charcmp.sweeping.cost import estimate_times, run_seconds
from charcmp.sweeping.grid import Job
from charcmp.sweeping.pool import run_processes
from charcmp.sweeping.race.arms import Arm, Model
from charcmp.sweeping.race.decide import Outcome
from charcmp.sweeping.race.plan import nearest_length
from charcmp.sweeping.race.race import Entry
from charcmp.sweeping.slots import Slot
from charcmp.sweeping.sweep import queue


@dataclass(frozen=True)
class Failed(Outcome):
    """The outcome of a run that ended without a result (killed, out of memory): as if diverged."""

    nats: float = math.inf


class LiveRunner:
    """A runner that trains a race's runs until the time is over.

    Args:
        make_job: makes the run of an entry.
        slots: shares of the machine.
        until: when the time is over, by time.monotonic().
        on_end: called with every run that has ended.
        updates_per_epoch: of all the training text.
    """

    def __init__(
        self,
        make_job: Callable[[Entry], Job],
        slots: Sequence[Slot],
        until: float,
        on_end: Callable[[Entry, Outcome], None],
        updates_per_epoch: int,
    ) -> None:
        self.make_job, self.slots, self.until, self.on_end = make_job, slots, until, on_end
        self.speeds: dict[Model, float] = {}  # seconds per update in a slot
        self.updates_per_epoch = updates_per_epoch

    def measure(self, models: Sequence[Model]) -> None:
        """Measures how long the models' updates take, evaluations included."""
        updates = 10 * self.updates_per_epoch  # long enough for evaluations to have a usual share
        jobs = {model: self.make_job(Entry(Arm(model, 0.003), updates, 0)) for model in models}
        estimates = estimate_times([*jobs.values()], self.slots, measure=True)
        for model, job in jobs.items():
            self.speeds[model] = estimates[job].seconds / updates

    def seconds_per_update(self, model: Model) -> float:
        return self.speeds[model]

    def seconds(self, entry: Entry) -> float:
        if self.make_job(entry).folder.result.exists():
            return 0.0
        return self.seconds_per_update(entry.arm.model) * entry.updates

    def nearest_length(self, updates: float) -> int:
        return nearest_length(updates, self.updates_per_epoch)

    def slot_seconds_left(self) -> float:
        return max(0.0, self.until - time.monotonic()) * len(self.slots)

    def run(self, entries: Sequence[Entry]) -> dict[Entry, Outcome]:
        """Trains runs: see race.Runner.

        Raises:
            UserError: if a run fails by a mistake of the user's, such as a text that has changed.
        """
        jobs = {entry: self.make_job(entry) for entry in entries}
        entry_of = {job: entry for entry, job in jobs.items()}

        def ended(job: Job) -> None:
            if (outcome := outcome_of(job)) is not None:
                self.on_end(entry_of[job], outcome)
            elif (failure := job.folder.read_failure()) is not None and failure.is_users:
                raise UserError(failure.line)

        to_do = [job for job in jobs.values() if job.folder.usable_result() is None]
        for job in jobs.values():
            if job not in to_do:  # finished before this command was started again
                ended(job)
        if to_do and time.monotonic() < self.until:
            queue(to_do)
            run_processes(to_do, slots=self.slots, until=self.until, on_end=ended)
            self._learn_speeds(jobs)
        found = {entry: outcome_of(job) for entry, job in jobs.items()}
        return {entry: outcome for entry, outcome in found.items() if outcome is not None}

    def _learn_speeds(self, jobs: Mapping[Entry, Job]) -> None:
        """Replaces the speeds measured before by those of the runs themselves."""
        for entry, job in jobs.items():
            result = job.folder.read_result()
            if result is not None and result.chars_per_second:
                seconds = run_seconds(job.spec, result.chars_per_second)
                self.speeds[entry.arm.model] = seconds / entry.updates

    def drop(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.make_job(entry).folder.checkpoint.unlink(missing_ok=True)


def outcome_of(job: Job) -> Outcome | None:
    """Returns a run's outcome; None if it has not ended, or failed by a mistake of the user's."""
    folder = job.folder
    result = folder.read_result()
    if result is None:
        failure = folder.read_failure()
        return None if failure is None or failure.is_users else Failed()
    if result.val_nats_per_char is None:
        return Outcome(math.inf)
    try:
        nll_N = read_nll(folder.val_nll, split_of(job.spec).val.num_chars)
    except (CorruptFileError, FileNotFoundError):
        return Outcome(result.val_nats_per_char)  # without blocks, so without an interval
    blocks = summarize(nll_N, num_series(result), result.unroll_steps)
    return Outcome(result.val_nats_per_char, blocks.block_means_RJ)
