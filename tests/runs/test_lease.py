"""Leases: one owner at a time, the dead found out, the superseded stopped."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
from helpers.console import TINY, Charcmp, wait_for
from helpers.sweeps import make_jobs

from charcmp.errors import BusyError, Interrupted, LostLeaseError
from charcmp.runs.folder import RunFolder
from charcmp.runs.lease import Lease
from charcmp.runs.status import run_status
from charcmp.sweeping.grid import Job
from charcmp.sweeping.pool import run_processes
from charcmp.sweeping.progress import queue
from charcmp.sweeping.slots import Slot
from charcmp.sweeping.sweep import record_deaths

SECONDS = 3.0  # of the leases here; a busy machine may hold up a heartbeat for a second

Owner = Callable[[Path], "subprocess.Popen[bytes]"]


@pytest.fixture
def owner() -> Iterator[Owner]:
    """Starts a process that holds the lease at a path."""
    started: list[subprocess.Popen[bytes]] = []

    def hold(path: Path) -> "subprocess.Popen[bytes]":
        code = (
            "import sys, time; from pathlib import Path; from charcmp.runs.lease import Lease;"
            f"lease = Lease(Path(sys.argv[1]), {SECONDS}); lease.acquire();"
            "print(flush=True); time.sleep(100)"
        )
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """An owner on another host, as a shared file system shows it: a file that is touched now and
    then, by a clock that is an hour slow. The value returned stops its heart."""
    path = tmp_path / "owner"
    write_owner(path, SECONDS)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(SECONDS / 6):
            os.utime(path, (time.time() - 3600,) * 2)

    heart = threading.Thread(target=beat)
    heart.start()
    yield stop.set
    stop.set()
    heart.join()


def test_an_owner_that_lives_keeps_it(tmp_path: Path, owner: Owner) -> None:
    process = owner(tmp_path / "owner")
    lease = Lease(tmp_path / "owner", SECONDS)
    assert not lease.is_free()
    with pytest.raises(BusyError, match=rf":{process.pid} is at work on it"):
        lease.acquire(patience=0.5)
    assert not lease.is_held


def test_an_owner_that_died_on_this_host_is_followed_at_once(tmp_path: Path, owner: Owner) -> None:
    process = owner(tmp_path / "owner")
    process.kill()
    process.wait()
    begun = time.monotonic()
    assert Lease(tmp_path / "owner", SECONDS).is_free()
    lease = Lease(tmp_path / "owner", SECONDS)
    lease.acquire()
    assert time.monotonic() - begun < SECONDS
    lease.check()
    lease.release()
    assert not lease.path.exists()


@pytest.mark.long
def test_an_owner_elsewhere_is_judged_by_its_heartbeat(tmp_path: Path, elsewhere) -> None:
    lease = Lease(tmp_path / "owner", SECONDS)
    with pytest.raises(BusyError, match="elsewhere:1"):
        lease.acquire(patience=2 * SECONDS)
    elsewhere()
    begun = time.monotonic()
    lease.acquire(patience=0.1)
    assert time.monotonic() - begun > 0.6 * SECONDS  # its last heartbeat was a moment before
    lease.check()
    lease.release()


@pytest.mark.long
def test_a_status_does_not_compare_two_clocks(tmp_path: Path, elsewhere) -> None:
    """The owner's clock is an hour slow. Whoever keeps looking notices its death."""
    folder = RunFolder(tmp_path, SECONDS)
    folder.checkpoint.touch()
    wait_for(lambda: run_status(folder).reason)
    status = run_status(folder)
    assert (status.state, status.owner) == ("running", "elsewhere:1")
    assert "may be dead: no heartbeat for 36" in (status.reason or "")
    elsewhere()
    wait_for(lambda: run_status(folder).state == "interrupted")


def test_the_status_of_a_folder_that_cannot_be_written(
    tmp_path: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = owner(tmp_path / "owner")
    opened = os.open

    def open_or_fail(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and Path(path).parent == tmp_path:
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", open_or_fail)
    status = run_status(RunFolder(tmp_path, SECONDS))
    assert (status.state, status.reason) == ("running", None)
    process.kill()
    process.wait()
    status = run_status(RunFolder(tmp_path, SECONDS))
    assert status.state == "interrupted"
    assert f":{process.pid} is dead" in (status.reason or "")


def test_waiting_for_a_lease_can_be_interrupted(tmp_path: Path, elsewhere) -> None:
    with pytest.raises(Interrupted):
        Lease(tmp_path / "owner", SECONDS).acquire(lambda: True)


def test_a_lease_of_another_length_is_held_like_any_other(tmp_path: Path, owner: Owner) -> None:
    process = owner(tmp_path / "owner")
    lease = Lease(tmp_path / "owner", SECONDS + 1)
    assert not lease.is_free()
    with pytest.raises(BusyError, match="uses a different lease_seconds"):
        lease.acquire()
    assert run_status(RunFolder(tmp_path, SECONDS + 1)).state == "running"
    process.kill()
    process.wait()
    assert lease.is_free()


def test_an_owner_elsewhere_is_silent_for_the_length_of_its_own_lease(tmp_path: Path) -> None:
    begun = time.monotonic()
    write_owner(tmp_path / "owner", 1.0)
    lease = Lease(tmp_path / "owner", 0.2)
    wait_for(lease.is_free)
    assert time.monotonic() - begun >= 1.0


def test_a_status_needs_no_lease_seconds(charcmp: Charcmp, owner: Owner, tmp_path: Path) -> None:
    run = tmp_path / "work" / "results" / "runs" / "a-run"
    run.mkdir(parents=True)
    owner(run / "owner")
    shown = charcmp("status", "--json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [found["state"] for found in json.loads(shown.stdout)] == ["running"]


@pytest.mark.long
def test_a_sweep_waits_for_a_run_with_another_lease(
    tiny_text: Path, owner: Owner, tmp_path: Path
) -> None:
    """Its other run goes on meanwhile; the owner dies when that has ended."""
    jobs = make_jobs(tiny_text, tmp_path, epochs=2)[:2]
    queue(jobs)
    process = owner(jobs[0].folder.lease.path)
    ended = []

    def on_end(job: Job) -> None:
        ended.append(job)
        process.kill()
        process.wait()

    run_processes(jobs, slots=[Slot("CPU", 1)] * 2, on_end=on_end)
    assert ended == [jobs[1], jobs[0]]
    assert all(job.folder.result.exists() for job in jobs)


def test_a_death_that_a_launcher_did_not_see_is_recorded(
    tiny_text: Path, owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charcmp.sweeping.sweep.WATCH_SECONDS", 0.05)
    jobs = [
        replace(job, folder=RunFolder(job.folder.path, SECONDS))
        for job in make_jobs(tiny_text, tmp_path)[:2]
    ]
    queue(jobs)
    dead, _ = (owner(job.folder.lease.path) for job in jobs)
    dead.kill()
    record_deaths(jobs)
    assert jobs[0].folder.failure_reason().startswith("died without a result")
    assert jobs[1].folder.read_failure() is None


def test_an_owner_that_was_followed_writes_nothing_more(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", SECONDS)
    folder.create()
    with folder.leased():
        folder.write_json(folder.history, 1)
        folder.lease.path.unlink()
        with pytest.raises(LostLeaseError, match="has taken it over"):
            folder.write_json(folder.history, 2)
        follower = RunFolder(tmp_path / "run", SECONDS)
        with follower.leased():
            with pytest.raises(LostLeaseError):
                folder.write_json(folder.history, 3)
            follower.write_json(follower.history, 4)
    assert folder.history.read_text() == "4\n"


@pytest.mark.long
def test_a_suspended_run_is_taken_over_and_stops_when_it_wakes(
    charcmp: Charcmp, start, tiny_text: Path, tmp_path: Path
) -> None:
    """A laptop's lid, a frozen cgroup, a file server away: alive, but silent for too long."""
    args = ["dataset=text", f"dataset.path={tiny_text}", *TINY, "cell=rnn", "epochs=30"]
    args += ["lease_seconds=3", "checkpoint_seconds=0"]
    alone = charcmp("train", *args, "results_dir=alone")
    assert alone.returncode == 0
    work = tmp_path / "work"
    asleep = start("train", *args)
    wait_for(lambda: list(work.glob("results/runs/*/checkpoint.pt")))
    asleep.send_signal(signal.SIGSTOP)
    other = charcmp("train", *args)
    assert other.returncode == 0, other.stderr
    assert "resuming" in other.stdout
    asleep.send_signal(signal.SIGCONT)
    _, errors = asleep.communicate(timeout=60)
    assert asleep.returncode == 4
    assert "has taken it over; this process has stopped" in errors
    (run,) = (work / "results" / "runs").iterdir()
    for name in ("best.safetensors", "test_nll.npy"):
        (expected,) = work.glob(f"alone/runs/*/{name}")
        assert (run / name).read_bytes() == expected.read_bytes()
    assert not (run / "owner").exists()


@pytest.fixture
def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that cannot exchange two names: NFS, SMB."""
    monkeypatch.setattr(filelock._util, "_rename_call", lambda: (lambda *_: errno.EINVAL, 2))


def write_owner(path: Path, seconds: float, pid: int = 1) -> None:
    path.write_text(
        f"filelock/2\npid={pid}\nhost=elsewhere\nmode=lease\ntoken=ab12\nduration={seconds}\n"
    )


@pytest.mark.usefixtures("no_exchange")
def test_without_an_exchange_the_dead_of_this_host_are_followed(
    tmp_path: Path, owner: Owner
) -> None:
    process = owner(tmp_path / "owner")
    process.kill()
    process.wait()
    lease = Lease(tmp_path / "owner", SECONDS)
    assert lease.is_free()
    assert list(tmp_path.iterdir()) == []
    process = owner(tmp_path / "owner")
    process.kill()
    process.wait()
    lease.acquire()
    lease.check()
    lease.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_exchange")
@pytest.mark.parametrize("is_empty", [False, True])
def test_without_an_exchange_the_dead_elsewhere_are_followed(
    tmp_path: Path, is_empty: bool
) -> None:
    """Also one that died before it had written its name."""
    write_owner(tmp_path / "owner", 0.5)
    if is_empty:
        (tmp_path / "owner").write_bytes(b"")
    lease = Lease(tmp_path / "owner", 0.5)
    assert not lease.is_free()
    lease.acquire(patience=60)
    lease.check()
    lease.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_exchange")
def test_a_lease_that_cannot_be_taken_over_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*names: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "rename", refuse)
    write_owner(tmp_path / "owner", 0.5)
    with pytest.raises(BusyError, match=rf"elsewhere:1 sends no.*delete {tmp_path}/owner"):
        Lease(tmp_path / "owner", 0.5).acquire(patience=0.2)


@pytest.mark.usefixtures("no_exchange")
def test_who_was_quicker_keeps_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody follows the dead between our last look and our rename: what we moved goes back."""
    path, rename = tmp_path / "owner", os.rename

    def rename_too_late(*names: Path) -> None:
        path.unlink()
        write_owner(path, 0.5, pid=2)
        rename(*names)

    monkeypatch.setattr(os, "rename", rename_too_late)
    write_owner(path, 0.5)
    lease = Lease(path, 0.5)
    wait_for(lambda: lease.is_free() or lease.owner() == "elsewhere:2")
    assert lease.owner() == "elsewhere:2"
    assert list(tmp_path.iterdir()) == [path]
