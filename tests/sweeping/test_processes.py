"""Processes of a sweep, forked or fresh: what they start with, and how they and the sweep end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import processes as works
from helpers.console import CHECKOUT, TINY, Charcmp, command, left_as_it_was, wait_for
from helpers.sweeps import children_of, results, servers_of

from charcmp.sweeping.processes import start, start_server
from charcmp.training.stop import StopRequest

pytestmark = pytest.mark.long
both = pytest.mark.parametrize("forked", [True, False], ids=["forked", "fresh"])


def ended(work: Callable[..., int], log: Path, forked: bool, variable: str = "") -> int | None:
    """The exit status of a process that does this."""
    process = start(work, (), log, {"CHARCMP_TEST": variable}, forked)
    process.join(60)
    return process.exitcode


@both
def test_where_it_begins(tmp_path: Path, forked: bool) -> None:
    log = tmp_path / "log.txt"
    log.write_text("of an earlier attempt\n")
    assert ended(works.describe, log, forked, variable="the slot's") == 3
    first, told, last = log.read_text().splitlines()
    assert first == "of an earlier attempt"
    assert last == "to standard error"
    found = json.loads(told)
    assert found["has_torch"] == (forked and start_server())
    assert not found["has_cuda_driver"]
    assert found["leads_its_session"]
    assert found["variable"] == "the slot's"
    assert found["working_dir"] == str(Path.cwd())
    if forked:  # a fork of a process with threads may wait for ever for one that it has not got
        assert found["parents_threads"] == found["threads"] == 1


def test_torch_is_set_up_alike(tmp_path: Path) -> None:
    logs = {forked: tmp_path / f"{forked}.txt" for forked in (True, False)}
    for forked, log in logs.items():
        assert ended(works.describe_torch, log, forked) == 0
    threads, is_initialized = json.loads(logs[True].read_text())
    assert logs[True].read_text() == logs[False].read_text()
    assert threads > 0
    assert not is_initialized


@both
def test_how_it_ended(tmp_path: Path, forked: bool) -> None:
    log = tmp_path / "log.txt"
    assert ended(works.kill_itself, log, forked) == -signal.SIGKILL
    assert ended(works.fail, log, forked) == 1
    assert log.read_text().endswith("RuntimeError: a mistake of ours\n")


@both
def test_one_that_is_aborted_says_where_it_was(tmp_path: Path, forked: bool) -> None:
    log = tmp_path / "log.txt"
    process = start(works.sleep_for_ever, (), log, {}, forked)
    wait_for(lambda: log.exists() and "sleeping" in log.read_text())
    assert process.pid is not None
    os.kill(process.pid, signal.SIGABRT)
    process.join(60)
    assert process.exitcode == -signal.SIGABRT
    assert "in sleep_for_ever" in log.read_text()


@both
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=lambda it: it.name)
def test_a_signal_that_comes_early_is_answered(
    tmp_path: Path, forked: bool, signum: signal.Signals
) -> None:
    log = tmp_path / "log.txt"
    process = start(works.answer_late, (), log, {}, forked)
    wait_for(lambda: log.exists() and "begun" in log.read_text())
    assert process.pid is not None
    os.kill(process.pid, signum)
    process.join(60)
    assert process.exitcode == 7


@both
def test_it_ends_with_the_sweep(tmp_path: Path, forked: bool) -> None:
    """However the sweep ends, and nothing of it is left."""
    told, log = tmp_path / "told", tmp_path / "log.txt"
    sweep = (
        "from pathlib import Path; from helpers.processes import run_until_told; "
        "from charcmp.sweeping.processes import start; "
        f"start(run_until_told, (Path({str(told)!r}),), Path({str(log)!r}), {{}}, {forked}).join()"
    )
    with subprocess.Popen([sys.executable, "-c", sweep], cwd=CHECKOUT / "tests") as process:
        wait_for(lambda: told.exists() and told.read_text())
        left = [*children_of(process.pid), *servers_of(process.pid)]
        process.kill()
    assert int(told.read_text()) in left
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))


def test_a_forked_run_is_what_train_makes_of_it(
    charcmp_process: Charcmp, tiny_text: Path, tmp_path: Path
) -> None:
    args = ["dataset=text", f"dataset.path={tiny_text}", *TINY, "cell=lstm", "layers=2"]
    assert charcmp_process("train", *args, "results_dir=alone").returncode == 0
    assert charcmp_process("sweep", *args, "results_dir=swept", "jobs=2").returncode == 0
    alone, swept = (tmp_path / "work" / name for name in ("alone", "swept"))
    assert results(swept) == results(alone)
    (run,) = (alone / "runs").iterdir()
    theirs = swept / "runs" / run.name
    for line, other in zip(
        (run / "config.yaml").read_text().splitlines(),
        (theirs / "config.yaml").read_text().splitlines(),
        strict=True,
    ):
        key = line.partition(":")[0]
        assert line == other or key in ("results_dir", "jobs", "progress")
    environment, others = (
        json.loads((folder / "environment.json").read_text()) for folder in (run, theirs)
    )
    expected = f"charcmp train seed=0 {' '.join(args)} results_dir=swept jobs=2 progress=false"
    assert others.pop("command") == expected
    for key in ("command", "started"):
        environment.pop(key, None), others.pop(key, None)
    assert others == environment
    assert (theirs / "log.txt").read_text().count("epoch") >= 3


def test_it_goes_on_when_the_server_is_killed(
    own_home, start, tiny_text: Path, tmp_path: Path
) -> None:
    args = ["dataset=text", f"dataset.path={tiny_text}", *TINY, "cell=rnn,gru", "layers=1"]
    args += ["epochs=20", "jobs=2"]
    sweep = start("sweep", *args)
    wait_for(lambda: len(children_of(sweep.pid)) == 2)
    (server,) = servers_of(sweep.pid)
    os.kill(server, signal.SIGKILL)
    output, errors = sweep.communicate(timeout=200)
    assert sweep.returncode == 0, output + errors
    assert "2 of 2 runs finished" in output
    for run in (tmp_path / "work" / "results" / "runs").iterdir():
        assert (run / "log.txt").read_text().count("epoch 20/20") == 1


@pytest.mark.parametrize("is_training", [False, True], ids=["at once", "later"])
def test_ctrl_c_reaches_the_sweep_alone(tiny_text: Path, tmp_path: Path, is_training: bool) -> None:
    """A terminal sends it to every process of its foreground group: the server is one."""
    args = ["dataset=text", f"dataset.path={tiny_text}", *TINY, "cell=rnn,gru", "epochs=9000"]
    with subprocess.Popen(
        command("sweep", *args, "layers=1", "jobs=2"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as sweep:
        wait_for(lambda: servers_of(sweep.pid))
        if is_training:
            wait_for(lambda: len(list(tmp_path.glob("results/runs/*/environment.json"))) == 2)
        os.killpg(sweep.pid, signal.SIGINT)
        _, errors = sweep.communicate(timeout=120)
    assert sweep.returncode == 130
    assert "Traceback" not in errors
    if is_training:
        assert "2 runs unfinished; the same command continues from there" in errors
        assert len(list(tmp_path.glob("results/runs/*/checkpoint.pt"))) == 2


def test_without_a_server_processes_are_fresh(
    charcmp_process: Charcmp, tiny_text: Path, tmp_path: Path
) -> None:
    """A temporary folder whose name leaves none for a socket."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    args = ["dataset=text", f"dataset.path={tiny_text}", *TINY, "cell=rnn", "layers=1"]
    done = charcmp_process("sweep", *args, TMPDIR=str(folder))
    assert done.returncode == 0, done.stderr
    assert len(results(tmp_path / "work" / "results")) == 1


def test_a_schedulers_signal_is_answered_after_the_checkpoint() -> None:
    """submitit's handler for SIGUSR2, which requeues the job and may end the process."""
    called: list[int] = []
    with left_as_it_was():
        signal.signal(signal.SIGUSR2, lambda signum, frame: called.append(signum))
        should_stop = StopRequest()
        assert not should_stop()
        os.kill(os.getpid(), signal.SIGUSR2)
        assert should_stop()
        assert not called
        should_stop.pass_on()
        assert called == [signal.SIGUSR2]
