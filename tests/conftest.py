"""Fixtures that tests share: the command line as a user runs it, and small texts to run it on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.console import STARTUP, TINY, Charcmp, call, command, write_tiny_text
from helpers.runs import losses, write_run


@pytest.fixture(scope="session", autouse=True)
def _unsynced() -> Iterator[None]:
    """Switches off fsync: what tests write in this process need not survive a loss of power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _without_torchs_compiler() -> Iterator[None]:
    """Spares the processes that tests start half of what importing torch takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(STARTUP), prepend=os.pathsep)
        yield


@pytest.fixture
def own_home(tmp_path: Path) -> dict[str, str]:
    """Makes an empty home and an empty folder `work` beside it; returns variables for the home."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "work").mkdir()
    return {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}


@pytest.fixture
def charcmp(tmp_path: Path, own_home: dict[str, str]) -> Charcmp:
    """Returns a function that runs `charcmp ARGS` in this process, in an empty folder and home."""

    def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return call(*args, cwd=tmp_path / "work", env={**own_home, **env})

    return run


@pytest.fixture
def charcmp_process(tmp_path: Path, own_home: dict[str, str]) -> Charcmp:
    """Returns a function that does the same in a process of its own."""

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
    """Returns a results folder with two finished runs.

    `tiny-lstm-...` is trained on the tiny text in layout `columns`, `mixed-gru-...` in one stream
    on a text of escape sequences, UTF-8 and bytes that are neither.
    """
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
def unloaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes it as in a process that has not asked yet whether Numba works."""
    from charcmp.models.cells.compiled import dispatch

    dispatch.why_not()  # what it imports is there again after the test
    for name in ("steps", *dispatch.FORMS):
        monkeypatch.delitem(sys.modules, f"charcmp.models.cells.compiled.{name}")
    dispatch.why_not.cache_clear()
    yield
    dispatch.why_not.cache_clear()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Yields a function that starts `charcmp ARGS` in the background.

    Kills what still runs when the test ends.
    """
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
    """Writes runs of three models at 50k, two of them with known losses, and of one at 130k."""
    write_run(tmp_path, 1.450, nll=losses(1.450))
    write_run(tmp_path, 1.4004, cell="gru", nll=losses(1.4004))
    write_run(tmp_path, 1.4446, cell="rnn", layers=2)
    write_run(tmp_path, 1.300, budget="130k", cell="gru", layers=3)
    return tmp_path
