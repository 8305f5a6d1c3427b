"""What a race makes of runs that ended in a sweep's processes; what the pool leaves behind."""

import math
import signal
import time
from pathlib import Path

import pytest
from helpers.sweeps import make_jobs, run

from charcmp.errors import UserError
from charcmp.sweeping.grid import Job
from charcmp.sweeping.pool import Pool
from charcmp.sweeping.race.arms import Arm, Model
from charcmp.sweeping.race.live import LiveRunner, outcome_of
from charcmp.sweeping.race.race import Entry
from charcmp.sweeping.slots import Slot

ENTRY = Entry(Arm(Model("50k", "rnn", 1), 0.006), 18, 0)
CPU = [Slot("CPU", 1, {})]


@pytest.fixture
def job(tiny_text: Path, tmp_path: Path) -> Job:
    job = make_jobs(tiny_text, tmp_path / "results", epochs=1)[2]
    job.folder.create()
    return job


def test_a_gpu_out_of_memory_loses_and_a_users_mistake_ends_the_race(job: Job) -> None:
    job.folder.write_failure("OutOfMemoryError: 2 GiB", retry=True)
    assert outcome_of(job) is not None
    assert outcome_of(job).nats == math.inf  # type: ignore[union-attr]
    job.folder.write_failure("tiny.txt has changed", retry=True, is_users=True)
    assert outcome_of(job) is None
    ended: list[Entry] = []
    text = job.spec.config.dataset.path
    assert text is not None
    Path(text).write_text("another text " * 400)
    runner = LiveRunner(lambda entry: job, CPU, time.monotonic() + 60,
                        lambda entry, outcome: ended.append(entry), 18)  # fmt: skip
    with pytest.raises(UserError, match=r"tiny\.txt"):
        runner.run([ENTRY])
    assert ended == []


def test_what_another_sweep_has_finished_is_heard_of(job: Job) -> None:
    ended: list[Job] = []
    pool = Pool([job], CPU, (), False, None, ended.append)
    run([job], CPU)
    pool.run()
    assert ended == [job]


def test_signals_are_answered_as_before_when_the_runs_are_over(job: Job) -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    Pool([job], CPU, (), False, time.monotonic(), None).run()
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before
