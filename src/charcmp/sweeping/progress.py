"""Shows how far a sweep is, in seconds of work: a bar in a terminal, elsewhere a line at times."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence

from msgspec import structs
from tqdm import tqdm

from charcmp.output import PROGRESS_SECONDS, duration, say
from charcmp.runs.result import Progress
from charcmp.sweeping.cost import TimeEstimate
from charcmp.sweeping.grid import Job

WAITING_SECONDS = 5.0  # between two looks at how far the waiting jobs are


class SweepProgress:
    """How far a sweep is; a job counts by the time that it is estimated to take.

    Args:
        jobs: all jobs of the sweep.
        estimates: how long each of them takes.
        is_shown: whether to show anything at all.
    """

    def __init__(
        self, jobs: Sequence[Job], estimates: Mapping[Job, TimeEstimate], is_shown: bool
    ) -> None:
        self.estimates, self.is_shown = estimates, is_shown
        self.num_jobs = len(jobs)
        self.num_done = self.num_without = 0  # ended with a result, and without
        self.total = sum(estimate.seconds for estimate in estimates.values())
        self.done = 0.0  # of the total, seconds that belong to jobs that have ended
        self.fractions = {job: job.fraction_done() for job in jobs} if is_shown else {}
        self.done_before = self._seconds_done(self.fractions) / self.total
        self.bar = tqdm(
            total=1.0,
            # The work of earlier attempts counts as done, but not towards the speed.
            initial=self.done_before,
            bar_format="{percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left{postfix}",
            disable=None if is_shown else True,  # None disables it unless stderr is a terminal
            mininterval=1.0,
        )
        self.begun = self.last_line = self.last_look = time.monotonic()

    def ended(self, job: Job, is_finished: bool = True) -> None:
        """Counts a job that the sweep does not try again; finished: it has a result."""
        self.done += self.estimates[job].seconds
        self.num_done += is_finished
        self.num_without += not is_finished

    def show(self, waiting: Iterable[Job], running: Sequence[Job]) -> None:
        """Moves the bar; without a terminal to show it in, prints a line if one is due."""
        now = time.monotonic()
        if not self.is_shown or (self.bar.disable and now - self.last_line < PROGRESS_SECONDS):
            return
        unfinished = looked_at = [*waiting, *running]
        if now - self.last_look >= WAITING_SECONDS:
            self.last_look = now
        else:  # a waiting job moves only if another sweep trains it
            looked_at = [*running]
        self.fractions |= {job: job.fraction_done() for job in looked_at}
        self.bar.n = min(1.0, (self.done + self._seconds_done(unfinished)) / self.total)
        without = f", {self.num_without} without a result" if self.num_without else ""
        runs = f"{self.num_done}/{self.num_jobs} runs done, {len(running)} running{without}"
        self.bar.set_postfix_str(runs)
        if self.bar.disable:
            self.last_line = now
            self._say(runs, now - self.begun)

    def _say(self, runs: str, seconds: float) -> None:
        done = self.bar.n - self.done_before
        left = duration(seconds * (1 - self.bar.n) / done) if done > 0 else "unknown"
        say(f"{100 * self.bar.n:.0f} %, {runs}, time left: {left}")

    def _seconds_done(self, jobs: Iterable[Job]) -> float:
        return sum(self.fractions[job] * self.estimates[job].seconds for job in jobs)

    def close(self) -> None:
        self.bar.close()


def queue(jobs: Sequence[Job]) -> None:
    """Notes in the folder of each run that it is waiting, so that `charcmp status` shows it.

    Raises:
        UserError: if the results folder cannot be written.
    """
    for job in jobs:
        job.folder.create()
        if not job.folder.progress.exists():
            epochs = job.spec.config.epochs
            waiting = Progress(**job.spec.row(), epoch=0, epochs=epochs, fraction=0.0)
            job.folder.write_progress(waiting)


def note_estimates(estimates: Mapping[Job, TimeEstimate]) -> None:
    """Notes in the folder of each run that has not begun how long it will take, for the status."""
    for job, estimate in estimates.items():
        if not job.fraction_done():  # a run that has begun notes a better estimate itself
            note = job.folder.read_progress()
            left = estimate.seconds_left
            job.folder.write_progress(structs.replace(note, seconds_left=left))


def write_line(line: str) -> None:
    """Prints a line above the bar, at once."""
    tqdm.write(line)
    sys.stdout.flush()
