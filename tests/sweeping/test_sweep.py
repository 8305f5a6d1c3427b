"""Sweeps through the command line: real child processes, killed, resumed, failing, skipped."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from helpers.console import (
    REAL_DATA,
    STARTUP,
    TINY,
    Charcmp,
    call,
    needs_corpora,
    wait_for,
    write_tiny_text,
)
from helpers.sweeps import children_of, results

from charcmp.runs.folder import RunFolder, run_folders, runs_dir

pytestmark = pytest.mark.long
GRID = ["cell=rnn,gru", "layers=1", "seed=0,1"]


def text_overrides(text: Path) -> list[str]:
    return ["dataset=text", f"dataset.path={text}"]


# Of the runs that are disturbed: a few seconds for the grid, with a checkpoint after every epoch.
DISTURBED = [*TINY, *GRID, "epochs=30", "checkpoint_seconds=0", "jobs=2"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What the DISTURBED runs end with when nothing happens to them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    text = write_tiny_text(folder / "tiny.txt")
    call("sweep", *text_overrides(text), *DISTURBED, cwd=folder, env={}).check_returncode()
    return results(folder / "results")


def test_a_sweep_skips_what_is_done(
    charcmp: Charcmp, charcmp_process: Charcmp, tiny_text: Path, tmp_path: Path
) -> None:
    args = [*text_overrides(tiny_text), *TINY, *GRID]
    alone = charcmp("train", *text_overrides(tiny_text), *TINY, "cell=gru", "seed=1")
    assert alone.returncode == 0
    first = charcmp_process("sweep", *args)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "4 runs: 1 finished before, 3 to do" in first.stdout  # train's run counts
    assert "4 of 4 runs finished" in first.stdout
    made = results(tmp_path / "work" / "results")
    assert len(made) == 4
    again = charcmp("sweep", *args)
    assert "4 runs: 4 finished before, 0 to do" in again.stdout
    assert results(tmp_path / "work" / "results") == made
    plan = charcmp("sweep", "--dry-run", "--no-cost", *args, "layers=1,2")
    assert "8 runs: 4 finished, 4 to do" in plan.stdout
    assert results(tmp_path / "work" / "results") == made


def test_a_failing_run_does_not_stop_the_others(
    charcmp: Charcmp, start, tiny_text: Path, tmp_path: Path
) -> None:
    args = [*text_overrides(tiny_text), *TINY, *GRID, "epochs=20"]
    plan = charcmp("sweep", "--dry-run", "--no-cost", *args).stdout
    victim = next(line.split()[0] for line in plan.splitlines() if "tiny-gru-" in line)
    runs = tmp_path / "work" / "results" / "runs"
    sweep = start("sweep", *args)
    wait_for((runs / victim / "environment.json").exists)  # it has begun; it ends with its history
    (runs / victim / "history.json").mkdir()  # where it will want to write a file
    stdout, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert f"failed: {victim}: " in stdout
    assert "cannot be written" in stdout
    assert "3 of 4 runs finished, 1 failed" in stdout
    (runs / victim / "history.json").rmdir()
    assert charcmp("sweep", *args).returncode == 0  # what is told at once may be tried at once
    assert len(results(tmp_path / "work" / "results")) == 4


def test_a_corrupt_result_is_set_aside_and_only_its_run_redone(
    charcmp: Charcmp, tiny_text: Path, tmp_path: Path
) -> None:
    args = [*text_overrides(tiny_text), *TINY, *GRID]
    charcmp("sweep", *args)
    folder = tmp_path / "work" / "results"
    before = results(folder)
    victim = sorted((folder / "runs").iterdir())[0]
    untouched = {
        run.name: (run / "result.json").stat().st_mtime_ns
        for run in (folder / "runs").iterdir()
        if run != victim
    }
    (victim / "result.json").write_text((victim / "result.json").read_text()[:100])
    done = charcmp("sweep", *args)
    assert done.returncode == 0
    assert "kept as result.json.bad-1" in done.stdout
    assert "4 runs: 3 finished before, 1 to do" in done.stdout
    assert results(folder) == before
    for name, mtime in untouched.items():
        assert (folder / "runs" / name / "result.json").stat().st_mtime_ns == mtime


@pytest.mark.parametrize("victim", ["parent", "child"])
def test_killed_at_any_moment_it_ends_as_if_left_alone(
    charcmp: Charcmp,
    start,
    tiny_text: Path,
    tmp_path: Path,
    undisturbed: dict[str, dict],
    victim: str,
) -> None:
    args = [*text_overrides(tiny_text), *DISTURBED, "results_dir=disturbed", "--retry-failed"]
    rng = random.Random(victim)
    disturbed = tmp_path / "work" / "disturbed"

    def epochs() -> int:
        runs = run_folders(runs_dir(disturbed))
        return sum(RunFolder(run).read_progress().epoch or 0 for run in runs)

    for _ in range(2):
        moment = epochs() + rng.randint(0, 10)  # of the 30 of each run
        sweep = start("sweep", *args)
        wait_for(lambda pid=sweep.pid, moment=moment: children_of(pid) and epochs() >= moment)
        child = children_of(sweep.pid)[0]
        if victim == "parent":
            sweep.kill()
        os.kill(child, signal.SIGKILL)
        assert sweep.wait(300) == (-signal.SIGKILL if victim == "parent" else 1)
    done = charcmp("sweep", *args)
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(disturbed) == undisturbed


def test_a_child_that_is_killed_is_named(
    charcmp: Charcmp, start, tiny_text: Path, tmp_path: Path
) -> None:
    args = [*text_overrides(tiny_text), *TINY, "cell=rnn", "layers=1", "epochs=2000"]
    sweep = start("sweep", *args)
    wait_for(lambda: children_of(sweep.pid))
    (child,) = children_of(sweep.pid)
    os.kill(child, signal.SIGKILL)
    output, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert "killed by SIGKILL (out of memory?)" in output

    plan = ["--dry-run", "--no-cost", *args[:-1], "epochs=2000,2"]
    held = "1 to do, 1 failed before (--retry-failed tries again)"
    assert f"2 runs: 0 finished, {held}\n" in charcmp("sweep", *plan).stdout
    assert "2 runs: 0 finished, 2 to do\n" in charcmp("sweep", "--retry-failed", *plan).stdout
    again = charcmp("sweep", *args[:-1], "epochs=2000,2")
    assert again.returncode == 1
    assert held in again.stdout
    assert "1 of 2 runs finished, 1 failed" in again.stdout


CELL_THAT_FAILS = """
import os, signal
from pathlib import Path
import torch
from torch import nn

class Mine(nn.RNNCell):
    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        in_a_run = os.readlink("/proc/self/fd/1").endswith("/log.txt")
        if in_a_run and list(Path("results/runs").glob("*/owner")):
            if Path("may_fail").exists():
                raise ValueError("no luck")
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_reason_is_that_of_the_last_attempt(
    charcmp_process: Charcmp, tiny_text: Path, tmp_path: Path
) -> None:
    """A failure that may be tried again, then a death before the first epoch, which may not."""
    work = tmp_path / "work"
    (work / "mine.py").write_text(CELL_THAT_FAILS)
    (work / "may_fail").touch()
    args = [*text_overrides(tiny_text), *TINY, "cell=module", "cell.target=mine.py:Mine"]
    first = charcmp_process("sweep", *args, "layers=1")
    assert "cannot be built with" in first.stdout
    (file,) = work.glob("results/runs/*/failure.json")
    assert json.loads(file.read_text())["retry"]
    (work / "may_fail").unlink()
    second = charcmp_process("sweep", *args, "layers=1")
    assert "killed by SIGKILL" in second.stdout
    failure = json.loads(file.read_text())
    assert failure["reason"].startswith("killed by SIGKILL")
    assert not failure["retry"]


def test_a_run_that_hangs_is_ended(
    charcmp_process: Charcmp, tiny_text: Path, tmp_path: Path
) -> None:
    """A library of one run that never returns: TensorBoard's, which a training looks for."""
    args = [*text_overrides(tiny_text), *TINY, *GRID, "hang_seconds=10"]
    usual = (STARTUP / "sitecustomize.py").read_text()  # Python runs the first that it finds
    (tmp_path / "sitecustomize.py").write_text(
        f"exec({usual!r})\n"
        "import os, re, sys, time\n"
        "class Finder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        log = os.readlink('/proc/self/fd/1')\n"
        "        if name == 'tensorboard' and re.search('/tiny-gru-.*-s0-.*/log.txt', log):\n"
        "            time.sleep(600)\n"
        "sys.meta_path.insert(0, Finder)\n"
    )
    done = charcmp_process("sweep", *args, PYTHONPATH=str(tmp_path))
    (folder,) = (tmp_path / "work" / "results" / "runs").glob("tiny-gru-*-s0-*")
    victim = folder.name
    assert done.returncode == 1
    assert f"failed: {victim}: hung: no progress for 10 s" in done.stdout
    assert "3 of 4 runs finished, 1 failed" in done.stdout
    failure = json.loads((folder / "failure.json").read_text())
    assert "in tensorboard" in failure["detail"]  # where it hung


def test_fail_fast_ends_the_others_with_checkpoints(
    charcmp: Charcmp, start, tiny_text: Path, tmp_path: Path
) -> None:
    args = [*text_overrides(tiny_text), *TINY, "cell=rnn", "layers=1", "seed=0,1", "epochs=5000"]
    sweep = start("sweep", *args, "jobs=2", "--fail-fast")
    runs = tmp_path / "work" / "results" / "runs"
    wait_for(lambda: len(list(runs.glob("*/environment.json"))) == 2)
    os.kill(children_of(sweep.pid)[0], signal.SIGKILL)
    output, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert "0 of 2 runs finished, 1 failed, 1 interrupted" in output
    assert list(runs.glob("*/checkpoint.pt"))


def test_a_launcher_other_than_ours(charcmp: Charcmp, tiny_text: Path, tmp_path: Path) -> None:
    """It composes each run from its overrides, and takes an exit for a crash, so none exits."""
    rates = ["optimizer.lr=2e-3,1e38", "clip=null"]
    args = [*text_overrides(tiny_text), *TINY, *rates, "cell=rnn", "layers=1"]
    done = charcmp("sweep", *args, "hydra/launcher=basic", "--fail-fast")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--fail-fast has no effect with BasicLauncher" in done.stdout
    assert "2 of 2 runs finished, 1 of them diverged" in done.stdout
    results = (tmp_path / "work" / "results" / "runs").glob("*/result.json")
    before = {file: file.stat().st_mtime_ns for file in results}
    assert len(before) == 2
    again = charcmp("sweep", *args, "hydra/launcher=basic")
    assert again.returncode == 0
    assert "2 runs: 2 finished before, 0 to do" in again.stdout
    assert before == {file: file.stat().st_mtime_ns for file in before}


def tmpfs(folder: Path, size: str) -> bool:
    """Mounts a small disk; whether this machine lets us."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(mount).returncode == 0


def test_a_full_disk_in_mid_run(
    charcmp: Charcmp, start, tiny_text: Path, tmp_path: Path, undisturbed: dict[str, dict]
) -> None:
    args = [*text_overrides(tiny_text), *DISTURBED]
    small = tmp_path / "work" / "small"
    if not tmpfs(small, "2M"):
        pytest.skip("mounting a tmpfs needs root")
    try:
        sweep = start("sweep", *args, "results_dir=small")
        wait_for(lambda: list(small.glob("runs/*/checkpoint.pt")))
        filler = small / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        _, errors = sweep.communicate(timeout=120)
        assert sweep.returncode == 5
        assert errors.splitlines()[-1].startswith("charcmp: ")
        assert "cannot be written (No space left on device); existing files are intact" in errors
        assert "failed" not in charcmp("status", "results_dir=small").stdout
        filler.unlink()
        done = charcmp("sweep", *args, "results_dir=small")
        assert done.returncode == 0
        assert results(small) == undisturbed
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_a_folder_that_is_read_only_in_mid_run(
    charcmp: Charcmp, start, tiny_text: Path, tmp_path: Path
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    args = [*text_overrides(tiny_text), *TINY, *GRID, "epochs=2000", "checkpoint_seconds=0"]
    sweep = start("sweep", *args)
    runs = tmp_path / "work" / "results" / "runs"
    wait_for(lambda: list(runs.glob("*/checkpoint.pt")))
    for folder in runs.iterdir():
        folder.chmod(0o555)
    _, errors = sweep.communicate(timeout=120)
    assert sweep.returncode == 5
    assert "cannot be written (Permission denied); existing files are intact" in errors
    for folder in runs.iterdir():
        folder.chmod(0o755)
    assert charcmp("sweep", *args, "epochs=3").returncode == 0


def test_a_result_of_another_run_is_no_result(
    charcmp: Charcmp, tiny_text: Path, tmp_path: Path
) -> None:
    args = [*text_overrides(tiny_text), *TINY, "cell=rnn", "layers=1"]
    charcmp("train", *args, "seed=0")
    runs = tmp_path / "work" / "results" / "runs"
    plan = charcmp("sweep", "--dry-run", "--no-cost", *args, "seed=1").stdout
    other = next(line.split()[0] for line in plan.splitlines() if "-s1-" in line)
    (first,) = runs.iterdir()
    shutil.copytree(first, runs / other)
    done = charcmp("sweep", *args, "seed=0,1")
    assert done.returncode == 0
    assert f"belongs to another run, {first.name}; kept as result.json.bad-1" in done.stdout
    assert "checkpoint.pt: of another configuration; kept as checkpoint.pt.bad-1" in (
        (runs / other / "log.txt").read_text()
    )
    assert json.loads((runs / other / "result.json").read_text())["seed"] == 1


def test_interrupted_by_the_user(charcmp: Charcmp, start, tiny_text: Path, tmp_path: Path) -> None:
    args = [*text_overrides(tiny_text), *TINY, *GRID, "epochs=2000"]
    sweep = start("sweep", *args)
    runs = tmp_path / "work" / "results" / "runs"
    wait_for(lambda: list(runs.glob("*/environment.json")))
    sweep.send_signal(signal.SIGINT)
    _, errors = sweep.communicate(timeout=120)
    assert sweep.returncode == 130
    assert "4 runs unfinished; the same command continues from there" in errors
    assert list(runs.glob("*/checkpoint.pt"))


def test_two_sweeps_do_not_train_one_run_twice(
    charcmp: Charcmp, start, tiny_text: Path, tmp_path: Path
) -> None:
    args = [*text_overrides(tiny_text), *TINY, *GRID, "epochs=10"]
    both = [start("sweep", *args) for _ in range(2)]
    for sweep in both:
        assert sweep.wait(120) == 0
    for run in (tmp_path / "work" / "results" / "runs").iterdir():
        log = (run / "log.txt").read_text()
        assert log.count("epoch 10/10") == 1


def test_dropout_select_expands_to_ordinary_runs(charcmp: Charcmp, tiny_text: Path) -> None:
    args = [*text_overrides(tiny_text), *TINY, "cell=rnn", "layers=2"]
    selected = charcmp("sweep", "--dry-run", "--no-cost", *args, "dropout=select").stdout
    listed = charcmp("sweep", "--dry-run", "--no-cost", *args, "dropout=0,0.1,0.2,0.3,0.5").stdout
    assert selected == listed
    assert "5 runs: 0 finished, 5 to do" in selected


def test_rate_select_expands_to_a_ladder(charcmp: Charcmp, tiny_text: Path) -> None:
    args = [*text_overrides(tiny_text), *TINY, "cell=rnn", "layers=2"]
    selected = charcmp("sweep", "--dry-run", "--no-cost", *args, "optimizer.lr=select").stdout
    assert "6 runs: 0 finished, 6 to do" in selected
    assert [line.split()[-1] for line in selected.splitlines()[2:-1]] == (
        ["0.0015", "0.003", "0.006", "0.012", "0.024", "0.048"]
    )
    refused = charcmp("train", *args, "optimizer.lr=select")
    assert refused.returncode == 2
    assert "is several runs: charcmp sweep optimizer.lr=select" in refused.stderr


def test_points_that_are_one_run_are_run_once(charcmp: Charcmp, tiny_text: Path) -> None:
    sizes = [*text_overrides(tiny_text), *TINY[1:], "cell=lstm", "layers=1"]
    plan = charcmp("sweep", "--dry-run", "--no-cost", *sizes, "budget=50k,50k,130k").stdout
    assert "2 runs" in plan


def test_a_bad_cell_is_told_before_anything_runs(
    charcmp: Charcmp, tiny_text: Path, tmp_path: Path
) -> None:
    done = charcmp("sweep", *text_overrides(tiny_text), *TINY, "cell=rnn,elman")
    assert done.returncode == 2
    assert "cell=elman: one of gru," in done.stderr
    assert not (tmp_path / "work" / "results").exists()


@needs_corpora
def test_the_papers_grid(charcmp: Charcmp) -> None:
    plan = charcmp("sweep", "--dry-run", "--no-cost", CHARCMP_DATA=str(REAL_DATA)).stdout
    assert "72 runs: 0 finished, 72 to do" in plan
    assert max(map(len, plan.splitlines())) <= 80 - len("  100 min  past runs")
    assert "wp-lstm-1x64-50k-s0-3def8185" in plan  # a published run: its id must not move


def test_a_dry_run_measures_what_it_does_not_know(
    charcmp: Charcmp, tiny_text: Path, tmp_path: Path
) -> None:
    args = [*text_overrides(tiny_text), *TINY, *GRID]
    plan = charcmp("sweep", "--dry-run", *args, "cell=rnn")
    assert plan.returncode == 0
    assert plan.stdout.count("measured") == 2  # both seeds by the same shape
    assert "2 runs: 0 finished, 2 to do" in plan.stdout
    assert "in all: " in plan.stdout
    assert not (tmp_path / "work" / "results" / "runs").exists()
    charcmp("sweep", *args, "cell=rnn", "seed=0")
    plan = charcmp("sweep", "--dry-run", *args)
    assert plan.stdout.count("past runs") == 1
    assert plan.stdout.count("measured") == 2
    lines = [line for line in plan.stdout.splitlines() if line.startswith("tiny-")]
    assert "done" in lines[-1]  # what is to do comes first


@pytest.mark.parametrize("flags", [(), ("--dry-run", "--no-cost")])
def test_a_text_too_short_is_told_before_anything_runs(
    charcmp: Charcmp, tiny_text: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    args = [*text_overrides(tiny_text), *TINY, *GRID, "batch_size=100", "unroll_steps=100"]
    done = charcmp("sweep", *flags, *args)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "too few" in done.stderr
    assert "works" in done.stderr
    assert "runs" not in done.stdout
    assert not (tmp_path / "work" / "results" / "runs").exists()
