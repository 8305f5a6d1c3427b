"""Trains a race's runs on this machine: ordinary runs, in the same processes as a sweep's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from charcmp.config.spec import split_of
from charcmp.errors import UserError
from charcmp.runs.reading import CorruptFileError
from charcmp.sweeping.children import LaneProcess
from charcmp.sweeping.cost import estimate_times, run_seconds
from charcmp.sweeping.grid import Job
from charcmp.sweeping.pool import end_lanes, run_processes
from charcmp.sweeping.race.arms import Arm, Model
from charcmp.sweeping.race.decide import Failed, Outcome
from charcmp.sweeping.race.plan import SECONDS_OF_CHECKS, SECONDS_PER_RUN, Cost, nearest_length
from charcmp.sweeping.race.race import PlannedRun
from charcmp.sweeping.slots import Slot
from charcmp.uncertainty.losses import num_series, read_nll, summarize


class LiveRunner:
    """A runner that trains a race's runs until the time is over; to be closed after its last one.

    Args:
        make_job: makes the job of a planned run.
        slots: shares of the machine.
        until: when the time is over, by time.monotonic().
        on_end: called with every run that has ended.
        updates_per_epoch: of all the training text.
    """

    def __init__(
        self,
        make_job: Callable[[PlannedRun], Job],
        slots: Sequence[Slot],
        until: float,
        on_end: Callable[[PlannedRun, Outcome], None],
        updates_per_epoch: int,
    ) -> None:
        self.make_job, self.slots, self.until, self.on_end = make_job, slots, until, on_end
        self.num_slots = len(slots)
        self.lanes: dict[str, LaneProcess] = {}  # of GPUs; they outlast the rungs
        self.speeds: dict[Model, float] = {}  # characters per second in a slot
        self.updates_per_epoch = updates_per_epoch

    def close(self) -> None:
        """Ends the processes that were kept for further runs."""
        end_lanes(self.lanes)

    def measure(self, models: Sequence[Model]) -> None:
        """Measures the models' speeds."""
        jobs = {model: self.make_job(_any_run(model, self.updates_per_epoch)) for model in models}
        estimates = estimate_times([*jobs.values()], self.slots, measure=True)
        for model, job in jobs.items():
            self.speeds[model] = run_seconds(job.spec, 1.0) / estimates[job].seconds

    def cost(self, model: Model) -> Cost:
        """Returns what the runs of a model take in one slot: see race.Runner.

        A run of part of an epoch evaluates as much text as one of a whole epoch. A further epoch
        evaluates more, which here its updates are said to take.
        """
        shortest, one_epoch, two_epochs = (
            run_seconds(self.make_job(_any_run(model, updates)).spec, self.speeds[model])
            for updates in (1, self.updates_per_epoch, 2 * self.updates_per_epoch)
        )
        return Cost(
            _seconds_of_start(model) + shortest, (two_epochs - one_epoch) / self.updates_per_epoch
        )

    def seconds(self, planned: PlannedRun) -> float:
        job = self.make_job(planned)
        # One that failed is tried again if there is time.
        if job.folder.result.exists() or has_failed(job):
            return 0.0
        whole = run_seconds(job.spec, self.speeds[planned.arm.model])
        return _seconds_of_start(planned.arm.model) + whole * (1 - job.fraction_done())

    def nearest_length(self, updates: float, most: float = math.inf) -> int:
        return nearest_length(updates, self.updates_per_epoch, most)

    def seconds_left(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def run(self, planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
        """Trains runs: see race.Runner.

        Raises:
            UserError: if a run fails by a mistake of the user's, such as a text that has changed.
        """
        jobs = {planned: self.make_job(planned) for planned in planned_runs}
        planned_of = {job: planned for planned, job in jobs.items()}
        found: dict[PlannedRun, Outcome] = {}

        def add(job: Job) -> bool:
            planned, outcome = planned_of[job], outcome_of(job)
            if outcome is not None and planned not in found:
                found[planned] = outcome
                self.on_end(planned, outcome)
            return outcome is not None

        def ended(job: Job) -> None:
            failure = None if add(job) else job.folder.read_failure()
            if failure is not None and failure.is_users:
                raise UserError(failure.line)

        to_do = [job for job in jobs.values() if job.folder.usable_result() is None]
        for job in jobs.values():
            if job not in to_do:  # finished before this command was started again
                ended(job)
        if to_do and time.monotonic() < self.until:
            run_processes(to_do, slots=self.slots, until=self.until, on_end=ended, lanes=self.lanes)
            self._learn_speeds({planned_of[job]: job for job in to_do})
        for job in to_do:  # also those that ended while the others were stopped, or long ago
            add(job)
        return found

    def _learn_speeds(self, jobs: Mapping[PlannedRun, Job]) -> None:
        """Replaces the speeds measured before by those of runs that were trained just now; older
        ones may have been trained on another device."""
        for planned, job in jobs.items():
            result = job.folder.read_result()
            if result is not None and result.chars_per_second:
                self.speeds[planned.arm.model] = result.chars_per_second

    def drop(self, planned_runs: Sequence[PlannedRun]) -> None:
        for folder in (self.make_job(planned).folder for planned in planned_runs):
            if folder.result.exists():  # one that failed is tried again
                folder.checkpoint.unlink(missing_ok=True)


def _any_run(model: Model, updates: int) -> PlannedRun:
    """Returns a run whose rate and seed do not matter, to see how long such runs take."""
    return PlannedRun(Arm(model, 0.003), updates, 0)


def _seconds_of_start(model: Model) -> float:
    return SECONDS_PER_RUN + SECONDS_OF_CHECKS * model.is_class


def has_failed(job: Job) -> bool:
    """Returns whether a run ended without a result, and not by a mistake of the user's."""
    failure = job.folder.read_failure()
    return failure is not None and not failure.is_users


def outcome_of(job: Job) -> Outcome | None:
    """Returns a run's outcome; None if it has not ended, or failed by a mistake of the user's."""
    folder = job.folder
    result = folder.read_result()
    if result is None:
        return Failed() if has_failed(job) else None
    if result.status == "diverged" or result.val_nats_per_char is None:
        return Outcome(math.inf)  # even if it has epochs before that: such a run is not to be used
    try:
        nll_N = read_nll(folder.val_nll, split_of(job.spec).val.num_chars)
    except CorruptFileError:
        return Outcome(result.val_nats_per_char)  # without blocks, so without an interval
    blocks = summarize(nll_N, num_series(result), result.unroll_steps)
    return Outcome(result.val_nats_per_char, blocks.block_means_RJ)
