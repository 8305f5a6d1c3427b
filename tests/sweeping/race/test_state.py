"""What a race reads of itself when it goes on."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from charcmp.errors import StorageError, UserError
from charcmp.sweeping.race.state import StateFile


def begun(file: Path) -> StateFile:
    state = StateFile(file, "0" * 64, {})
    state.length_of(0, lambda: 400)
    return state


def test_a_state_that_the_disk_does_not_deliver_is_not_called_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "race.json"
    begun(file)
    really_open = os.open

    def open_or_fail(path: Any, *args: Any, **options: Any) -> int:
        if path == file:
            raise OSError(errno.EIO, "Input/output error")
        return really_open(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_or_fail)
        with pytest.raises(StorageError, match=r"race\.json: Input/output error; nothing was"):
            begun(file)
    assert begun(file).state.lengths == [400]


def test_a_broken_state_is_named_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "race.json"
    file.write_text('{"version": 2')
    with pytest.raises(UserError, match=r"race\.json: .*; move it away to begin a new race"):
        begun(file)
    assert file.read_text() == '{"version": 2'
