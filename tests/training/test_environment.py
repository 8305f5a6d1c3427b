"""What a run records of the code that it executes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.console import CHECKOUT

from charcmp.models.cells.registry import CELLS
from charcmp.training.environment import checkout_state


def git(folder: Path, *args: str) -> str:
    who = ["-c", "user.name=N", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *who, *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit_all(folder: Path) -> str:
    git(folder, "add", ".")
    git(folder, "commit", "-m", "all")
    return git(folder, "rev-parse", "HEAD")


def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    assert checkout_state(tmp_path) == {"git_commit": None, "git_dirty": None}
    git(tmp_path, "init")
    (tmp_path / "src" / "code.py").write_text("1")
    commit = commit_all(tmp_path)
    assert checkout_state(tmp_path) == {"git_commit": commit, "git_dirty": False}
    assert checkout_state(tmp_path / "src") == {"git_commit": None, "git_dirty": None}
    (tmp_path / "notes.txt").write_text("not code")
    assert checkout_state(tmp_path) == {"git_commit": commit, "git_dirty": False}
    (tmp_path / "src" / "more.py").write_text("2")
    assert checkout_state(tmp_path) == {"git_commit": commit, "git_dirty": True}


def test_reading_the_commit_leaves_the_index_alone(tmp_path: Path) -> None:
    """git writes it anew, under a lock, where a file has another time than it notes."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "code.py").write_text("1")
    git(tmp_path, "init")
    commit_all(tmp_path)
    os.utime(tmp_path / "src" / "code.py", (1e9, 1e9))
    index = (tmp_path / ".git" / "index").read_bytes()
    assert checkout_state(tmp_path)["git_dirty"] is False
    assert (tmp_path / ".git" / "index").read_bytes() == index


SWEEP = """
import sys
from pathlib import Path
from charcmp.sweeping.processes import start
from helpers import processes as works
text, folder = map(Path, sys.argv[1:])
start(works.describe, (), folder / "log.txt", {}, forked=True).join()
print("started", flush=True)
input()
training = start(works.train_every_cell, (text, folder), folder / "log.txt", {}, forked=True)
training.join()
sys.exit(training.exitcode)
"""


@pytest.mark.long
def test_runs_record_the_commit_that_they_execute(tiny_text: Path, tmp_path: Path) -> None:
    """A sweep's server has started; then somebody commits code that cannot even be imported."""
    checkout = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "src", checkout / "src", ignore=ignored)
    git(tmp_path, "init", str(checkout))
    commit = commit_all(checkout)
    sweep = subprocess.Popen(
        [sys.executable, "-c", SWEEP, str(tiny_text), str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(checkout / "src"), str(CHECKOUT / "tests"), os.environ["PYTHONPATH"]]
            ),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with sweep:
        assert sweep.stdin is not None
        assert sweep.stdout is not None
        assert sweep.stdout.readline() == "started\n"
        for file in (checkout / "src").rglob("*.py"):
            file.write_text("raise ImportError('of a later commit')\n")
        assert commit_all(checkout) != commit
        sweep.communicate("go on\n", timeout=120)
    assert sweep.returncode == 0, (tmp_path / "log.txt").read_text()
    for cell in CELLS:
        for file in ("result.json", "environment.json"):
            found = json.loads((tmp_path / cell / file).read_text())
            assert (found["git_commit"], found["git_dirty"]) == (commit, False)
