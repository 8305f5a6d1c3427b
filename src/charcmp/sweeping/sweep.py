"""A sweep: launches the unfinished runs of a grid and sums up how all of them ended."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hydra.plugins.launcher import Launcher

from charcmp.errors import EXIT_FAILED
from charcmp.output import counted, note
from charcmp.runs.status import run_status
from charcmp.sweeping.grid import Grid, Job
from charcmp.sweeping.plan import look_ahead, to_do, without_held
from charcmp.sweeping.progress import queue

WATCH_SECONDS = 2.0  # between looks at runs that may have died silently


def launch_jobs(launcher: Launcher, jobs: list[Job], fail_fast: bool) -> None:
    """Runs jobs by our launcher, or by another one, which composes each from its overrides."""
    if (run_jobs := getattr(launcher, "launch_jobs", None)) is not None:
        run_jobs(jobs, fail_fast)
        return
    if fail_fast:
        note(f"--fail-fast has no effect with {type(launcher).__name__}")
    queue(jobs)
    try:
        launcher.launch([job.overrides for job in jobs], 0)
    except Exception as error:  # some launchers stop watching when the first job fails
        reason = " ".join(str(error).split())[:200]
        note(f"{type(launcher).__name__} has stopped watching: {reason}")
        note(
            "jobs may still be running (charcmp status --watch); later, the same command "
            "runs the rest"
        )
    record_deaths(jobs)


def record_deaths(jobs: Sequence[Job]) -> None:
    """Records runs that died silently (killed, out of memory): no result, lease still held,
    heartbeat stopped."""
    silent = {
        job: job.folder.lease.stamp()
        for job in jobs
        if not job.folder.result.exists() and job.folder.lease.owner() is not None
    }
    deadline = time.monotonic() + max((job.folder.lease.seconds for job in silent), default=0) + 1
    while silent and time.monotonic() < deadline:
        for job, stamp in list(silent.items()):
            if job.folder.lease.is_free():
                job.folder.record_death(
                    "died without a result (killed, or out of memory?); see the launcher's own logs"
                )
                del silent[job]
            elif job.folder.lease.stamp() != stamp:
                del silent[job]  # it has given a heartbeat: it is alive
        time.sleep(WATCH_SECONDS)


def run(grid: Grid, launch: Callable[[list[Job]], Any], retry_failed: bool = False) -> None:
    """Runs `charcmp sweep`: launches the unfinished runs; exit status 1 if some end without result.

    Args:
        grid: the runs.
        launch: runs jobs, and returns when none of them is running any more.
        retry_failed: whether to retry runs that failed in an earlier sweep.
    """
    jobs = grid.jobs()
    unfinished = [job for job in jobs if job.folder.usable_result() is None]
    left, held = without_held(unfinished, retry_failed)
    look_ahead(left)
    for text in sorted({f"{job.spec.corpus.name} is a {job.spec.corpus.note}"
                        for job in jobs if job.spec.corpus.note}):  # fmt: skip
        note(text)
    finished = f"{len(jobs) - len(unfinished)} finished before"
    print(f"{counted(len(jobs), 'run')}: {finished}, {to_do(left, held)}")
    if left:
        launch(left)
    print_outcome(jobs)


def print_outcome(jobs: Sequence[Job]) -> None:
    """Prints how a sweep ended; exit status 1 if a run has no result."""
    counts: Counter[str] = Counter()
    for job in jobs:
        state = run_status(job.folder).state
        counts[state] += 1
        if state == "failed":
            print(f"failed: {job.spec.run_id}: {job.folder.failure_reason()}")
        elif state != "done":
            print(f"{state}: {job.spec.run_id}")
    num_finished = counts["done"] + counts["diverged"]
    others = [f"{counts['diverged']} of them diverged"] if counts["diverged"] else []
    others += [f"{n} {state}" for state, n in counts.items() if state not in ("done", "diverged")]
    print(
        ", ".join([f"{num_finished} of {counted(len(jobs), 'run')} finished", *others])
        + "; charcmp report makes the tables"
    )
    if num_finished < len(jobs):
        sys.exit(EXIT_FAILED)
