"""What a race makes of runs that ended in a sweep's processes; what the pool leaves behind."""

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import broken_cells
from helpers.runs import write_run
from helpers.sweeps import LANES, children_of, make_jobs, run

from charcmp.config.spec import resolve
from charcmp.errors import UserError
from charcmp.models.cells.registry import cell_config
from charcmp.runs.folder import RunFolder
from charcmp.runs.lease import Lease
from charcmp.runs.result import Progress
from charcmp.sweeping.grid import Job
from charcmp.sweeping.pool import Pool
from charcmp.sweeping.race.arms import Arm, Model
from charcmp.sweeping.race.board import Board
from charcmp.sweeping.race.decide import Outcome
from charcmp.sweeping.race.live import LiveRunner, outcome_of
from charcmp.sweeping.race.plan import SECONDS_PER_RUN
from charcmp.sweeping.race.race import PlannedRun
from charcmp.sweeping.slots import Slot

PLANNED = PlannedRun(Arm(Model("50k", "rnn", 1), 0.006), 18, 0)
CPU = [Slot("CPU", 1, {})]
slots_of_each_kind = pytest.mark.parametrize("slots", [CPU, LANES], ids=["process", "lanes"])


@pytest.fixture
def job(tiny_text: Path, tmp_path: Path) -> Job:
    job = make_jobs(tiny_text, tmp_path / "results", epochs=1)[2]
    job.folder.create()
    return job


@contextmanager
def race_of(job: Job, slots: list[Slot] = CPU) -> Iterator[tuple[LiveRunner, list[Outcome]]]:
    """What trains a race's runs, and the outcomes that its board hears of."""
    heard: list[Outcome] = []
    until = time.monotonic() + 60
    runner = LiveRunner(
        lambda planned: job, slots, until, lambda _, outcome: heard.append(outcome), 18
    )
    with closing(runner):
        yield runner, heard


def test_a_run_that_was_killed_has_lost_and_the_board_says_failed(job: Job) -> None:
    job.folder.record_death("killed by SIGKILL (out of memory?)")
    outcome = outcome_of(job)
    assert outcome is not None
    assert not outcome.is_usable
    board = Board([PLANNED.arm.model], updates_per_epoch=18, until=0.0)
    board.ran(PLANNED, outcome)
    assert [row["validation"] for row in board.rows()] == ["failed"]
    board = Board([PLANNED.arm.model], updates_per_epoch=18, until=0.0)
    board.ran(PLANNED, Outcome(math.inf))
    assert [row["validation"] for row in board.rows()] == ["diverged"]


def test_a_run_that_diverged_after_good_epochs_has_lost(job: Job) -> None:
    """It has a validation loss, of its best epoch, but no test loss and perhaps no weights."""
    with race_of(job) as (runner, _):
        assert runner.run([PLANNED])[PLANNED].is_usable
    result = json.loads(job.folder.result.read_text())
    job.folder.result.write_text(json.dumps(result | {"status": "diverged"}))
    outcome = outcome_of(job)
    assert outcome is not None
    assert not outcome.is_usable


@slots_of_each_kind
def test_a_text_that_changes_ends_the_race_and_trains_no_other_run(
    job: Job, slots: list[Slot]
) -> None:
    """It would do as well; but it is not the one that was planned."""
    text = Path(str(job.spec.config.dataset.path))
    text.write_text(text.read_text()[::-1])
    changed = "the text has changed since this run was planned"
    with race_of(job, slots) as (runner, heard), pytest.raises(UserError, match=changed):
        runner.run([PLANNED])
    assert heard == []
    assert [path.name for path in job.folder.path.parent.iterdir()] == [job.spec.run_id]
    failure = job.folder.read_failure()
    assert failure is not None
    assert failure.retry


@slots_of_each_kind
def test_a_class_that_changes_is_told_of(
    tiny_text: Path, tmp_path: Path, slots: list[Slot]
) -> None:
    file = shutil.copy(broken_cells.__file__, tmp_path / "my_cell.py")
    job = make_jobs(tiny_text, tmp_path / "results", epochs=1)[2]
    cell = cell_config("module", target=f"{file}:Step", kind="step", states=1)
    spec = resolve(replace(job.spec.config, cell=cell))
    job = Job(job.overrides, spec, RunFolder(job.folder.path.with_name(spec.run_id)))
    with Path(file).open("a") as opened:
        opened.write("# another version of it\n")
    run([job], slots)
    assert "the text or the class has changed since" in job.folder.failure_reason()
    assert [path.name for path in job.folder.path.parent.iterdir()] == [spec.run_id]


@slots_of_each_kind
def test_a_text_that_is_gone_for_a_moment_is_no_runs_failure(job: Job, slots: list[Slot]) -> None:
    text = Path(str(job.spec.config.dataset.path))
    text.rename(away := text.with_name("away.txt"))
    gone = r"tiny\.txt: no such file"
    with race_of(job, slots) as (runner, heard), pytest.raises(UserError, match=gone):
        runner.run([PLANNED])
    assert heard == []
    away.rename(text)
    with race_of(job, slots) as (runner, heard):
        assert runner.run([PLANNED])[PLANNED].is_usable
    assert len(heard) == 1


def test_the_processes_of_lanes_outlast_a_rung(job: Job) -> None:
    with race_of(job, LANES) as (runner, _):
        assert runner.run([PLANNED])[PLANNED].is_usable
        (first,) = children_of(os.getpid())
        shutil.rmtree(job.folder.path)
        assert runner.run([PLANNED])[PLANNED].is_usable
        (second,) = children_of(os.getpid())
        os.kill(second, signal.SIGKILL)  # a next rung starts another
        shutil.rmtree(job.folder.path)
        assert runner.run([PLANNED])[PLANNED].is_usable
        (third,) = children_of(os.getpid())
    assert first == second != third
    assert not children_of(os.getpid())


def finish(job: Job, folder: Path, chars_per_second: float) -> None:
    """Writes the result of a run that another process has trained."""
    written = write_run(folder, 1.4, val_nats_per_char=1.5, chars_per_second=chars_per_second)
    result = json.loads((written / "result.json").read_text()) | {"run_id": job.spec.run_id}
    job.folder.create()
    job.folder.result.write_text(json.dumps(result))


class HeldToTheEnd(Lease):
    """Of a run that another process is at work on, which finishes it while the pool waits."""

    def __init__(self, path: Path, finish: Callable[[], None]) -> None:
        super().__init__(path)
        self.finish = finish

    def is_free(self) -> bool:
        if not self.path.with_name("result.json").exists():
            self.finish()
        return False


def test_a_run_that_finishes_as_the_time_ends_is_shown_and_old_ones_teach_no_speed(
    tiny_text: Path, tmp_path: Path
) -> None:
    old, last = make_jobs(tiny_text, tmp_path / "results", epochs=1)[2:4]
    finish(old, tmp_path / "old", 9e5)  # on another device
    last.folder.lease = HeldToTheEnd(
        last.folder.lease.path, lambda: finish(last, tmp_path / "last", 2e4)
    )
    other = PLANNED._replace(arm=Arm(Model("50k", "gru", 1), 0.006))
    jobs = {PLANNED: old, other: last}
    shown: list[PlannedRun] = []
    until = time.monotonic() + 0.3
    runner = LiveRunner(jobs.__getitem__, CPU, until, lambda planned, _: shown.append(planned), 18)
    assert {*runner.run([*jobs])} == {*jobs}
    assert shown == [PLANNED, other]
    assert runner.speeds == {other.arm.model: 2e4}


def test_what_is_done_of_a_run_takes_no_time_and_is_kept_to_be_tried_again(job: Job) -> None:
    with race_of(job) as (runner, _):
        runner.speeds[PLANNED.arm.model] = 100.0
        whole = runner.seconds(PLANNED)
        job.folder.checkpoint.write_bytes(b"half")
        job.folder.write_progress(Progress(fraction=0.5))
        assert runner.seconds(PLANNED) - SECONDS_PER_RUN == (whole - SECONDS_PER_RUN) / 2
        job.folder.record_death("killed by SIGKILL (out of memory?)")
        runner.drop([PLANNED])
        assert job.folder.checkpoint.exists()
        job.folder.result.write_text("{}")
        runner.drop([PLANNED])
        assert not job.folder.checkpoint.exists()


def test_what_another_sweep_has_finished_is_heard_of(job: Job) -> None:
    ended: list[Job] = []
    pool = Pool([job], CPU, (), False, None, ended.append, None)
    run([job], CPU)
    pool.run()
    assert ended == [job]


def test_signals_are_answered_as_before_when_the_runs_are_over(job: Job) -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    Pool([job], CPU, (), False, time.monotonic(), None, None).run()
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before
