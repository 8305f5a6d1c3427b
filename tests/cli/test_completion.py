"""Tab completion: what a word can become, and real shells in which somebody presses the key."""

import contextlib
import os
import pty
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.console import in_turn, wait_for

from charcmp.cli.commands import COMMANDS
from charcmp.cli.completion import candidates, split_line

EXPECTED = {
    "charcmp tr": ["train"],
    "charcmp help dat": ["data"],
    "charcmp train optimizer=ada": ["optimizer=adagrad", "optimizer=adam", "optimizer=adamw"],
    "charcmp sweep cell=gru,ls": [
        *("cell=gru,lstm", "cell=gru,lstm_cascaded_gate", "cell=gru,lstm_peephole"),
        "cell=gru,lstm_softmax_gate",
    ],
    "charcmp train cell=gru cell.": ["cell.activation="],
    "charcmp train optimizer=sgd optimizer.m": ["optimizer.momentum="],
    "charcmp train dropout=": [],
    "charcmp sweep dropout=": ["dropout=select"],
    "charcmp sweep --d": ["--dry-run"],
    "charcmp train progress=": ["progress=true", "progress=false"],
    "charcmp train --cfg ": ["job"],
    "charcmp report --format csv,m": ["csv,md"],
    "charcmp report --format=s": ["--format=svg"],
    "charcmp report --output ": ["a folder/", "results/"],
    "charcmp report layers=2 la": [],
    "charcmp status ep": ["epochs="],
    "charcmp train bud": ["budget="],
    "charcmp train experiment=d": ["experiment=demo"],
    "charcmp train --config-dir mine experiment=o": [],
    "charcmp train --config-dir 'a folder' experiment=o": ["experiment=own"],
    "charcmp score run=wp": ["run=wp-gru-1x8", "run=wp-lstm-1x8"],
    "charcmp score run=res": ["run=results/"],
    "charcmp score run=x my": ["my text.txt"],
    "charcmp train dataset.path='my te": ["dataset.path=my text.txt"],
    "charcmp train dataset.path=a\\ folder/": ["dataset.path=a folder/experiment/"],
    "charcmp recommend min": ["minutes="],
    "charcmp recommend my": ["my text.txt"],
    "charcmp sweep my": ["my text.txt"],
    "charcmp status my": ["my text.txt"],
    "charcmp report --format csv a": ["a folder/"],
    "charcmp doctor precision=": ["precision=float32", "precision=tf32"],
    "charcmp doctor my": [],
    "charcmp data f": ["fetch"],
    "charcmp data fetch w": ["wp"],
    "charcmp completion f": ["fish"],
    "charcmp xyz ": [],
    "charcmp train no_such_key=": [],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two runs, a text, and choices of one's own."""
    for run in ("wp-gru-1x8", "wp-lstm-1x8"):
        (tmp_path / "results" / "runs" / run).mkdir(parents=True)
    (tmp_path / "my text.txt").write_text("text")
    (tmp_path / "a folder" / "experiment").mkdir(parents=True)
    (tmp_path / "a folder" / "experiment" / "own.yaml").write_text("# @package _global_\n")
    return tmp_path


@pytest.mark.parametrize(("line", "expected"), EXPECTED.items(), ids=list(EXPECTED))
def test_what_a_line_can_go_on_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch, line: str, expected: list[str]
) -> None:
    monkeypatch.chdir(folder)
    words, _ = split_line(line)
    assert candidates(words) == expected


def test_every_command_is_completed_with_something(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for command in COMMANDS:
        assert candidates(["charcmp", command, ""])


def test_a_tab_imports_nothing_slow(tmp_path: Path) -> None:
    (done,) = in_turn(["completion", "query", "bash", "charcmp report cell=g"], cwd=tmp_path)
    assert done.stdout.split() == ["gru", "gru_reset_after"]
    assert done.stderr == ""
    assert not {"torch", "hydra", "omegaconf", "numpy", "pandas", "yaml"} & done.loaded


STARTS = {
    "bash": (["bash", "--norc", "-i"], 'eval "$(charcmp completion bash)"\n'),
    "zsh": (["zsh", "-f", "-i"], 'eval "$(charcmp completion zsh)"\n'),
    "fish": (["fish", "--no-config", "-i"], "charcmp completion fish | source\n"),
}
# What is typed, a tab as \t, and the arguments that the program then gets.
TYPED = {
    "charcmp swe\t--dry\tcell=gru_r\t\n": ["sweep", "--dry-run", "cell=gru_reset_after"],
    "charcmp score run=wp-g\tmy\t\n": ["score", "run=wp-gru-1x8", "my text.txt"],
    "charcmp train dataset.path=my\tbud\t60k\n": [
        *("train", "dataset.path=my text.txt", "budget=60k"),
    ],
    "charcmp train data_dir=a\tex\t\n": ["train", "data_dir=a folder/experiment/"],
}


@pytest.mark.parametrize("shell", list(STARTS))
def test_in_a_shell(folder: Path, shell: str) -> None:
    start, load = STARTS[shell]
    if shutil.which(start[0]) is None:
        pytest.skip(f"{shell} is not installed")
    (folder / "bin").mkdir()
    program, got = folder / "bin" / "charcmp", folder / "got"
    program.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = completion ] && exec "{sys.executable}" -m charcmp "$@"\n'
        f"printf '%s\\n' \"$@\" > '{got}.new'; mv '{got}.new' '{got}'\n"
    )
    program.chmod(0o755)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "HOME": str(folder), "TERM": "xterm"}
    with in_terminal(start, folder, env) as terminal:
        os.write(terminal, load.encode())
        for keys, args in TYPED.items():
            os.write(terminal, keys.encode())
            wait_for(got.is_file, 20)
            assert got.read_text().splitlines() == args
            got.unlink()


@contextmanager
def in_terminal(command: list[str], folder: Path, env: dict[str, str]) -> Iterator[int]:
    """Runs a program in a terminal of its own; yields the side at which somebody would type."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, cwd=folder, env=env, preexec_fn=lambda: os.login_tty(theirs)
    )
    os.close(theirs)
    reader = threading.Thread(target=read_all, args=(ours,), daemon=True)
    reader.start()
    try:
        yield ours
    finally:
        process.kill()
        process.wait()
        reader.join()
        os.close(ours)


def read_all(terminal: int) -> None:
    """Reads what a terminal shows, so that nobody waits for room in it."""
    with contextlib.suppress(OSError):  # when the program has ended
        while os.read(terminal, 1024):
            pass
