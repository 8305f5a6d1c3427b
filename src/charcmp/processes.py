"""Runs in child processes of their own, as many at once as there are slots."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

from tqdm import tqdm

from charcmp.commands import EXIT_BUSY, PARENT_VARIABLE
from charcmp.config import Config
from charcmp.errors import Interrupted
from charcmp.sweep import Job

POLL_SECONDS = 0.2
STOP_SECONDS = 10.0  # for children to write a checkpoint after SIGTERM


@dataclass
class Child:
    job: Job
    slot: list[str]
    process: subprocess.Popen[bytes]
    first_note_time: float  # progress notes older than this are from an earlier attempt


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_slots(config: Config) -> list[list[str]]:
    """For each run that may go on at once, the overrides that give it its share of the machine.

    On GPUs one run each; on a CPU one single-threaded run per core, which has 1.3 to 1.7 times the
    throughput of one run on two threads (LOG.md).
    """
    num_gpus = 0
    if config.device != "cpu":
        import torch

        num_gpus = torch.cuda.device_count()
    if num_gpus:
        devices = [f"cuda:{i}" for i in range(num_gpus)]
        if config.device.startswith("cuda:"):
            devices = [config.device]
        return [[f"device={devices[i % len(devices)]}"] for i in range(config.jobs or len(devices))]
    cores = available_cores()
    jobs = config.jobs or max(1, cores // (config.threads or 1))
    threads = config.threads or max(1, cores // jobs)
    return [[f"threads={threads}"] for _ in range(jobs)]


def run_processes(jobs: Sequence[Job], extra_args: Sequence[str] = ()) -> None:
    """Runs every job by `charcmp train`; a job that fails leaves the others alone.

    Raises:
        Interrupted: after SIGINT or SIGTERM, when all children have written their checkpoints.
    """
    waiting = deque(jobs)
    free = deque(make_slots(jobs[0].spec.config))
    running: list[Child] = []
    total = sum(job.cost for job in jobs)
    done = 0.0
    num_done = num_failed = 0
    stop = False

    def request_stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, request_stop)
    bar = tqdm(
        total=1.0,
        # What earlier attempts did counts as done, not as speed.
        initial=sum(_fraction(job) * job.cost for job in jobs) / total,
        bar_format="{percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left{postfix}",
        disable=not jobs[0].spec.config.progress or None,
        mininterval=1.0,
    )
    while (waiting or running) and not stop:
        while free and (job := _next_job(waiting)) is not None:
            if job.folder.result.exists():  # by another sweep, meanwhile
                done += job.cost
                num_done += 1
            else:
                running.append(_start(job, free.popleft(), extra_args))
        time.sleep(POLL_SECONDS)
        for child in [child for child in running if child.process.poll() is not None]:
            running.remove(child)
            free.append(child.slot)
            if child.process.returncode == EXIT_BUSY:
                waiting.append(child.job)
                continue
            done += child.job.cost
            if child.job.folder.result.exists():
                num_done += 1
            else:
                num_failed += 1
                _record_death(child)
            tqdm.write(_outcome(child))
        going = sum(_fraction(child.job) * child.job.cost for child in running)
        later = sum(_fraction(job) * job.cost for job in waiting)
        bar.n = min(1.0, (done + going + later) / total)
        failed = f", {num_failed} failed" if num_failed else ""
        bar.set_postfix_str(f"{num_done}/{len(jobs)} runs done, {len(running)} running{failed}")
    bar.close()
    if stop:
        _stop_all(running)
        raise Interrupted(f"sweep interrupted with {len(waiting) + len(running)} runs unfinished")


def _next_job(waiting: deque[Job]) -> Job | None:
    """Takes the first job that no other process is at work on: a second sweep, or what is left of
    one that was killed a moment ago."""
    for job in waiting:
        if not job.folder.is_locked():
            waiting.remove(job)
            return job
    return None


def _fraction(job: Job) -> float:
    value = job.folder.read_progress().get("fraction", 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def _start(job: Job, slot: list[str], extra_args: Sequence[str]) -> Child:
    """Starts a child. It is in a session of its own, so that Ctrl-C reaches only the parent, and
    watches for its parent's death itself."""
    job.folder.create()
    given = {override.split("=", 1)[0] for override in job.overrides}
    share = [override for override in slot if override.split("=", 1)[0] not in given - {"device"}]
    command = [
        *(sys.executable, "-m", "charcmp", "train"),
        *extra_args,
        *job.overrides,
        *share,
        "progress=false",
    ]
    started = time.time()
    with job.folder.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
        )
    return Child(job, slot, process, started)


def _record_death(child: Child) -> None:
    """Notes how a child ended that could not do so itself."""
    code = child.process.returncode
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        child.job.folder.write_failure(f"killed by {name}{hint}")
    elif not child.job.folder.failure.exists():
        lines = child.job.folder.log.read_text(errors="replace").strip().splitlines()
        child.job.folder.write_failure(lines[-1] if lines else f"exit status {code}")


def _outcome(child: Child) -> str:
    folder = child.job.folder
    if not folder.result.exists():
        return f"{child.job.spec.run_id}: failed"
    lines = folder.log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"{child.job.spec.run_id}: finished"


def _stop_all(running: Sequence[Child]) -> None:
    for child in running:
        child.process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for child in running:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
