"""Atomic writes: killed between any two lines, a file is the old one or the new one."""

import errno
import json
import math
import os
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import IO

import pytest

from charcmp.errors import UserError, VanishedError
from charcmp.files import remove_leftovers, write_atomically, write_bytes, write_json
from charcmp.runs.folder import RunFolder
from charcmp.runs.result import Progress

# Writes `new` over `old` and kills itself, as kill -9 does, before the n-th line of the writing.
KILLED_AT_LINE = """
import os, signal, sys
from pathlib import Path
from charcmp.files import write_atomically
left = int(sys.argv[2])
def trace(frame, event, arg):
    global left
    if frame.f_code is write_atomically.__code__ and event == "line":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
sys.settrace(trace)
write_atomically(Path(sys.argv[1]), lambda file: [file.write(b"new " * 1000) for _ in range(9)])
"""


@pytest.mark.long
def test_killed_between_any_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen = []
    for line in range(1, 100):
        code = subprocess.run([sys.executable, "-c", KILLED_AT_LINE, str(path), str(line)])
        content = path.read_bytes()
        assert content in (b"old", b"new " * 9000)
        seen.append(content == b"old")
        if code.returncode == 0:
            break
        path.write_bytes(b"old")
    assert code.returncode == 0
    assert True in seen
    assert False in seen[:-1]  # killed after the rename, too
    remove_leftovers(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("code", "of_folder", "works"),
    [
        (errno.EINVAL, True, True),
        (errno.ENOTSUP, True, True),
        (errno.EIO, True, False),
        (errno.EINVAL, False, False),
    ],
)
def test_a_file_system_that_flushes_no_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, of_folder: bool, works: bool
) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == of_folder:
            raise OSError(code, "refused")

    monkeypatch.setattr(os, "fsync", fsync)
    with nullcontext() if works else pytest.raises(UserError, match="refused"):
        write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").exists() == of_folder
    assert not list(tmp_path.glob(".new-*"))


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    """As processes with one number, in two containers, would."""
    path = tmp_path / "file"

    def write(file: IO[bytes]) -> None:
        file.write(b"slow")
        write_bytes(path, b"quick")
        assert path.read_bytes() == b"quick"

    write_atomically(path, write)
    assert path.read_bytes() == b"slow"
    assert list(tmp_path.iterdir()) == [path]


def test_a_note_that_the_owner_clears_away_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep's, of a run to come, while another process begins it."""
    folder = RunFolder(tmp_path)
    folder.write_progress(Progress(epoch=1))
    replace = os.replace

    def replace_too_late(*names: Path) -> None:
        remove_leftovers(tmp_path)
        replace(*names)

    monkeypatch.setattr(os, "replace", replace_too_late)
    folder.write_progress(Progress(epoch=2))
    assert folder.read_progress().epoch == 1
    with pytest.raises(VanishedError, match="existing files are intact"):
        folder.write_json(folder.history, [])


def test_json_holds_what_every_reader_takes(tmp_path: Path) -> None:
    """A path that is not UTF-8 has surrogates; JSON has no numbers that are not finite."""
    folder = RunFolder(tmp_path)
    for write in (write_json, folder.write_json):
        write(folder.history, {"path": os.fsdecode(b"my-\xff.txt")})
        assert json.loads(folder.history.read_bytes()) == {"path": "my-?.txt"}
        with pytest.raises(ValueError, match="not JSON compliant"):
            write(folder.history, {"loss": math.nan})


@pytest.mark.parametrize("content", [b"", b"x" * 100_000])
def test_what_is_written_is_read(tmp_path: Path, content: bytes) -> None:
    write_atomically(tmp_path / "file", lambda file: file.write(content))
    assert (tmp_path / "file").read_bytes() == content
