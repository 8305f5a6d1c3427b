"""Lanes: runs that share a process, on CPU threads here, end as they would alone."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.console import CHECKOUT, wait_for, write_tiny_text
from helpers.sweeps import LANES, children_of, make_jobs, results, run

from charcmp.errors import EXIT_ALONE, Interrupted
from charcmp.sweeping.children import LaneProcess
from charcmp.sweeping.grid import Job
from charcmp.sweeping.lanes import LaneOrder
from charcmp.sweeping.pool import Pool
from charcmp.sweeping.progress import queue
from charcmp.sweeping.slots import Slot
from charcmp.training.session import Session
from charcmp.training.train import train

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A sweep's own answers to signals end with it."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def train_alone(text: Path, folder: Path, device: str = "cpu") -> dict[str, dict]:
    """What the runs end with one after another."""
    jobs = make_jobs(text, folder, device=device)
    queue(jobs)
    for job in jobs:
        train(job.spec, job.folder, Session(say=lambda line: None))
    return results(folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("alone")
    return train_alone(write_tiny_text(folder / "tiny.txt"), folder)


def processes_of_lanes() -> list[int]:
    """Children of this process, without the `ps` that listed them."""
    return [child for child in children_of(os.getpid()) if Path(f"/proc/{child}").exists()]


def test_as_alone(tiny_text: Path, tmp_path: Path, alone: dict[str, dict]) -> None:
    jobs = make_jobs(tiny_text, tmp_path / "lanes")
    run(jobs)
    assert results(tmp_path / "lanes") == alone
    environment = jobs[0].folder.environment.read_text()
    assert '"lanes": 3' in environment
    assert '"command": "charcmp train dataset=text' in environment
    assert "nats/char, perplexity" in jobs[0].folder.log.read_text()
    assert not processes_of_lanes()


def test_a_lane_that_diverges_or_fails_leaves_the_others_alone(
    tiny_text: Path, tmp_path: Path
) -> None:
    jobs = make_jobs(tiny_text, tmp_path / "lanes", lr=1e30)
    diverging, whole, *others = jobs
    gone = replace(whole.spec.config.dataset, path=str(tmp_path / "gone.txt"))
    spec = replace(whole.spec, config=replace(whole.spec.config, dataset=gone))
    failing = replace(whole, spec=spec)
    run([diverging, failing, *others])
    assert '"status": "diverged"' in diverging.folder.result.read_text()
    assert not failing.folder.result.exists()
    assert "gone.txt: no such file" in failing.folder.failure_reason()
    assert all('"status": "done"' in job.folder.result.read_text() for job in others)


def test_a_log_takes_any_name(tiny_text: Path, tmp_path: Path, capfd) -> None:
    """A folder's that is not UTF-8: the log has it, escaped, and the sweep shows that."""
    folder = tmp_path / os.fsdecode(b"r\xe9sultats")
    jobs = make_jobs(tiny_text, folder, epochs=1)[:2]
    run(jobs)
    said = capfd.readouterr().out
    for job in jobs:
        last = job.folder.log.read_text("utf-8").splitlines()[-1]
        assert last.endswith(f"r\\udce9sultats/runs/{job.spec.run_id}")
        assert last in said


def test_a_log_that_cannot_be_opened_ends_its_run_alone(tiny_text: Path, tmp_path: Path) -> None:
    jobs = make_jobs(tiny_text, tmp_path / "lanes", epochs=1)[:2]
    queue(jobs)
    lanes = LaneProcess(LANES[0])
    logs = [tmp_path, jobs[1].folder.log]  # the first is a folder
    for job, log in zip(jobs, logs, strict=True):
        lanes.give(LaneOrder(job.spec.config, job.spec.run_id, log, "charcmp train", 2))
    codes: dict[Path, int] = {}

    def have_ended() -> bool:
        for log in logs:
            if (code := lanes.ending(log)) is not None:
                codes[log] = code
        return len(codes) == 2

    try:
        wait_for(have_ended)
    finally:
        lanes.process.terminate()
        lanes.process.join()
    assert codes == {logs[0]: EXIT_ALONE, logs[1]: 0}
    lanes.tell_what_it_said(logs[1])
    assert f"{tmp_path}: cannot be written (Is a directory)" in logs[1].read_text()


def test_when_their_process_is_killed_they_go_on_in_another_then_alone(
    tiny_text: Path, tmp_path: Path, alone: dict[str, dict], capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = make_jobs(tiny_text, tmp_path / "lanes")
    killed: set[int] = set()

    def kill() -> None:
        wait_for(jobs[0].folder.checkpoint.exists)
        for _ in range(2):
            wait_for(lambda: set(processes_of_lanes()) - killed)
            (lanes,) = set(processes_of_lanes()) - killed
            os.kill(lanes, signal.SIGKILL)
            killed.add(lanes)

    killer = threading.Thread(target=kill)
    killer.start()
    run(jobs)
    killer.join()
    said = capfd.readouterr().out
    assert said.count("its shared process failed; continuing in another") >= 2
    assert said.count("failed while sharing a GPU; it will continue alone") >= 2
    assert "resuming" in jobs[0].folder.log.read_text()
    assert results(tmp_path / "lanes") == alone


def test_interrupted_together_they_resume_together(
    tiny_text: Path, tmp_path: Path, alone: dict[str, dict]
) -> None:
    jobs = make_jobs(tiny_text, tmp_path / "lanes")

    def interrupt() -> None:
        wait_for(lambda: jobs[0].fraction_done() > 0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(Interrupted, match="runs unfinished"):
        run(jobs)
    assert not processes_of_lanes()
    assert jobs[0].folder.checkpoint.exists()
    left = [job for job in jobs if not job.folder.result.exists()]
    run(left)
    assert results(tmp_path / "lanes") == alone


def test_they_end_when_the_sweep_is_killed(tiny_text: Path, tmp_path: Path) -> None:
    """A pipe that is closed, a parent that is gone."""
    jobs = make_jobs(tiny_text, tmp_path / "lanes", epochs=900)
    again = (
        "from pathlib import Path; from helpers.sweeps import make_jobs, run; "
        f"run(make_jobs(Path({str(tiny_text)!r}), Path({str(tmp_path / 'lanes')!r}), epochs=900))"
    )
    with subprocess.Popen([sys.executable, "-c", again], cwd=CHECKOUT / "tests") as sweep:
        wait_for(lambda: jobs[0].fraction_done() > 0)
        (lanes,) = children_of(sweep.pid)
        sweep.kill()
    wait_for(lambda: not Path(f"/proc/{lanes}").exists())
    assert all(job.folder.lease.is_free() for job in jobs)


@pytest.mark.cuda
def test_as_alone_on_a_gpu(tiny_text: Path, tmp_path: Path) -> None:
    jobs = make_jobs(tiny_text, tmp_path / "lanes")
    run(jobs, [Slot("GPU", None, {}, 3)] * 3)
    one = train_alone(tiny_text, tmp_path / "one", device="cuda")
    for run_id, result in results(tmp_path / "lanes").items():
        nats = "test_nats_per_char"
        assert result["device"].startswith("cuda")
        assert result[nats] == pytest.approx(one[run_id][nats], abs=1e-4)


def test_a_run_that_failed_beside_others_goes_on_alone(
    tiny_text: Path, tmp_path: Path, alone: dict[str, dict]
) -> None:
    """Not beside them in a process of its own, where the memory would be no less taken."""
    jobs = make_jobs(tiny_text, tmp_path / "lanes")
    queue(jobs)
    beside: dict[Job, int] = {}  # runs that go on when a run ends

    def on_end(job: Job) -> None:
        beside[job] = len(pool.running)

    pool = Pool(jobs, LANES, (), False, None, on_end, None)
    pool.alone = {jobs[0], jobs[3]}
    pool.run()
    assert [beside[job] for job in pool.alone] == [0, 0]
    assert max(beside.values()) > 0
    assert results(tmp_path / "lanes") == alone
