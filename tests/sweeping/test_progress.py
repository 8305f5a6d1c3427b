"""The progress of a sweep: what it reads of its runs, and when."""

from pathlib import Path

import pytest
from helpers.sweeps import make_jobs

from charcmp.runs.result import Progress
from charcmp.sweeping import progress
from charcmp.sweeping.cost import TimeEstimate
from charcmp.sweeping.grid import Job
from charcmp.sweeping.progress import SweepProgress, queue


@pytest.fixture
def jobs(tiny_text: Path, tmp_path: Path) -> list[Job]:
    """Returns two runs of which nothing is trained yet."""
    two = make_jobs(tiny_text, tmp_path)[:2]
    queue(two)
    return two


def sweep_of(jobs: list[Job], is_shown: bool = True) -> SweepProgress:
    return SweepProgress(jobs, {job: TimeEstimate(10.0, 10.0, "assumed") for job in jobs}, is_shown)


def half(job: Job) -> None:
    job.folder.write_progress(Progress(fraction=0.5))


def test_waiting_runs_are_read_less_often(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(progress, "WAITING_SECONDS", 3600.0)
    waiting, running = jobs
    shown = sweep_of(jobs)
    half(running)
    half(waiting)  # by another sweep
    shown.show([waiting], [running])
    monkeypatch.setattr(progress, "WAITING_SECONDS", 0.0)
    shown.show([waiting], [running])
    shown.close()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("25 %, 0/2 runs done, 1 running, time left: ")
    assert second.startswith("50 %, 0/2 runs done, 1 running, time left: ")


def test_what_is_not_shown_is_not_read(jobs: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    """Neither with progress=false, nor between two lines where there is no terminal."""
    hidden, between = sweep_of(jobs, is_shown=False), sweep_of(jobs)
    for job in jobs:
        half(job)
    for shown in (hidden, between):
        shown.show([], jobs)
        assert shown.bar.n == 0
        shown.close()
    assert capsys.readouterr().out == ""
