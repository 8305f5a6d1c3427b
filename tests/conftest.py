"""Shared by the tests: the command line as a user runs it, and small texts to run it on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.console import TINY, Charcmp, call, command, write_tiny_text
from helpers.runs import losses, write_run


@pytest.fixture(scope="session", autouse=True)
def _unsynced() -> Iterator[None]:
    """What tests write in this process need not survive a loss of power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def own_home(tmp_path: Path) -> dict[str, str]:
    """Variables that name an empty home, beside the empty folder `work`."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "work").mkdir()
    return {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}


@pytest.fixture
def charcmp(tmp_path: Path, own_home: dict[str, str]) -> Charcmp:
    """Runs `charcmp ARGS` in an empty folder with an empty home, in this process, and returns what
    came of it."""

    def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return call(*args, cwd=tmp_path / "work", env={**own_home, **env})

    return run


@pytest.fixture
def charcmp_process(tmp_path: Path, own_home: dict[str, str]) -> Charcmp:
    """The same in a process of its own."""

    def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*args),
            cwd=tmp_path / "work",
            env={**os.environ, **own_home, **env},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def tiny_text(tmp_path: Path) -> Path:
    return write_tiny_text(tmp_path / "tiny.txt")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with two finished runs: `tiny-lstm-...` on the tiny text, read in rows, and
    `mixed-gru-...` on one of escape sequences, UTF-8 and bytes that are neither, in one row."""
    folder = tmp_path_factory.mktemp("trained")
    write_tiny_text(folder / "tiny.txt")
    mixed = "\x1b[31mröt 私は\n\t".encode() + b"\x9b\xff\x00\r\n"
    (folder / "mixed.txt").write_bytes(mixed * 60)
    for text, overrides in {
        "tiny": ["cell=lstm", "dataset.layout=columns", "epochs=12", "hidden_size=16"],
        "mixed": ["cell=gru", "batch_size=1", "epochs=1"],
    }.items():
        text_overrides = ["dataset=text", f"dataset.path={folder / text}.txt", "layers=2"]
        args = [*text_overrides, *TINY, *overrides, f"results_dir={folder}"]
        call("train", *args, cwd=folder, env={}).check_returncode()
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `charcmp ARGS` in the background; what still runs when the test ends is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(*args),
            cwd=tmp_path / "work",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def small_grid(tmp_path: Path) -> Path:
    """Three cells of the paper's 50k row, with known losses, and one of the next row."""
    write_run(tmp_path, 1.450, nll=losses(1.450))
    write_run(tmp_path, 1.4004, cell="gru", nll=losses(1.4004))
    write_run(tmp_path, 1.4446, cell="rnn", layers=2)
    write_run(tmp_path, 1.300, budget="130k", cell="gru", layers=3)
    return tmp_path
